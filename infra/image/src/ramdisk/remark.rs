/// Something about an entry that its line in a list does not tell. Paths may have control characters in them; escaped in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remark {
    /// The path was there before: the kernel keeps the later entry.
    Replaces {
        /// Of the later one.
        path: String,
        /// Where the earlier one is, from 1.
        ramdisk: usize,
    },
    /// Another name of the same file: a change to one is a change to both.
    HardLink {
        /// The name.
        path: String,
        /// The name that came first.
        to: String,
    },
    /// The kernel leaves the entry out, unless it has that directory built in.
    NoParent {
        /// Of the entry.
        path: String,
        /// What is not there, or no directory.
        parent: String,
    },
    /// The entry is not where its path says.
    ThroughLink {
        /// Of the entry.
        path: String,
        /// The symbolic link on the way.
        link: String,
    },
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replaces { path, ramdisk } => {
                write!(
                    f,
                    "{path:?} replaces the entry of that name in ramdisk {ramdisk}"
                )
            }
            Self::HardLink { path, to } => write!(f, "{path:?} is a hard link to {to:?}"),
            Self::NoParent { path, parent } => write!(
                f,
                "{path:?} is left out by the kernel: no directory {parent:?} comes before it"
            ),
            Self::ThroughLink { path, link } => {
                write!(f, "{path:?} lands elsewhere: {link:?} is a symbolic link")
            }
        }
    }
}
