"""The training methods: LightningModules that only wire model, prompts and loss together."""
