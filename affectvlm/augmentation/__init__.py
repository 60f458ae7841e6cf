"""What real uploads bring, done to clean data: damage to scans (`scans`), and mixed view augmentation of pictures
(`views`)."""
