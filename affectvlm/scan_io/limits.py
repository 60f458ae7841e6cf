"""How much a file may ask for. Each bound is checked before memory is taken, from what the file declares."""

MIB = 1024 * 1024

MAX_FILE_BYTES = 256 * MIB
"""Largest scan file or archive. A binary mesh of `MAX_VERTICES` and `MAX_FACES` fits."""

MAX_UNPACKED_BYTES = 512 * MIB
"""Largest sum of the sizes of an archive's members, and largest output of one gzip file."""

MAX_EXPANSION = 200
"""Largest unpacked : packed ratio of an archive of more than `FREE_EXPANSION_BYTES`. Text scans pack 3 to 15 : 1."""

FREE_EXPANSION_BYTES = 32 * MIB
"""Below this unpacked size the ratio does not matter: a plain-coloured texture packs 1000 : 1."""

MAX_MEMBERS = 1000
"""Most entries of an archive."""

MAX_GZIP_MEMBERS = 10_000
"""Most members of a gzip file. Block-wise packers make one of each 64 KiB: 4,096 of the largest file."""

MAX_VERTICES = 3_000_000
MAX_FACES = 6_000_000
"""Most triangles, after polygons are split. A face scan has 5,000 to 500,000 vertices and twice as many triangles."""

MAX_NUMBERS = 30_000_000
"""Most numbers in one list of a text file: some 6 seconds of reading."""

MAX_LINES = 16_000_000
MAX_LINE_BYTES = 16 * MIB
"""Most lines of a text file that is read by lines, and the longest one."""

MAX_SERIES_FRAMES = 10_000
MAX_SERIES_MEMBERS = 40_000
"""Most frames of a sequence, and most files of the folder or archive that holds them with their textures."""

MAX_SERIES_BYTES = 16 * 1024 * MIB
"""Largest sum of the sizes of the members of such an archive. They are unpacked one at a time: it bounds time alone."""

MAX_TEXTURE_PIXELS = 2**26
"""Largest texture, or all textures of one scan together: 8192 x 8192 pixels, 192 MiB as RGB."""

MAX_TEXTURES = 64
"""Most texture images of one scan."""

MAX_IMAGE_BYTES = 64 * MIB
"""Largest texture image as a file."""

MAX_NOTE_BYTES = 4 * MIB
"""Largest material or landmark file."""

MAX_HEADER_BYTES = 64 * 1024
"""Longest PLY header."""

MAX_JSON_ITEMS = 500_000
"""Most values in a glTF's JSON; a scan needs a few hundred."""

MAX_SCENE_NODES = 10_000
"""Most nodes of a scene graph, uses of a shared node counted each time."""

MAX_SCENE_DEPTH = 100
"""Deepest nesting of a scene graph."""

DRACO_SECONDS = 4
DRACO_MEMORY_BYTES = 2048 * MIB
"""Processor time and memory of decoding one Draco mesh; a face scan takes some 10 ms and a tenth of that."""

MAX_COORDINATE = 1e8
"""Coordinates beyond this (in the file's unit) are no surface: range sensors write -1e9 for "no data"."""

MAX_BAD_SHARE = 0.05
"""Share of the vertices that may be NaN, infinite or beyond `MAX_COORDINATE` before the file is refused."""

MIN_POINTS = 3
"""Fewest vertices of a scan."""
