/// How a ramdisk is compressed, as the kernel tells it by the first two bytes (lib/decompress.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// The only one that is listed.
    Gzip,
    /// Named only.
    Bzip2,
    /// Named only.
    Lzma,
    /// Named only.
    Xz,
    /// Named only.
    Lzo,
    /// Named only.
    Lz4,
    /// Named only.
    Zstd,
}

impl Compression {
    pub(crate) fn from_magic(magic: [u8; 2]) -> Option<Self> {
        match magic {
            [0x1f, 0x8b] => Some(Self::Gzip),
            [0x42, 0x5a] => Some(Self::Bzip2),
            [0x5d, 0x00] => Some(Self::Lzma),
            [0xfd, 0x37] => Some(Self::Xz),
            [0x89, 0x4c] => Some(Self::Lzo),
            [0x02, 0x21] => Some(Self::Lz4),
            [0x28, 0xb5] => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}
