//! What the entries make of the file system, one after the other.

use std::collections::HashMap;

use crate::ramdisk::archive::Found;
use crate::ramdisk::entry::{Entry, EntryKind};
use crate::ramdisk::path;
use crate::ramdisk::remark::Remark;

/// Directories that a kernel's own archive makes before all others (usr/default_cpio_list).
const BUILT_IN: [&str; 2] = ["dev", "root"];

/// The paths of all ramdisks so far.
#[derive(Default)]
pub(crate) struct Tree {
    nodes: HashMap<String, Node>,
    /// A ramdisk whose entries are not known came before.
    pub(crate) blind: bool,
}

struct Node {
    /// From 1.
    ramdisk: usize,
    what: What,
    mode: u32,
    owner: (u32, u32),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Directory,
    Symlink,
    Other,
}

impl Tree {
    /// Adds an entry of a ramdisk, counted from 1, and says what people would not expect of it.
    pub(crate) fn add(&mut self, ramdisk: usize, found: &Found, remarks: &mut Vec<Remark>) {
        let entry = &found.entry;
        let path = || entry.path.clone();
        for parent in path::parents(&entry.path) {
            match self.nodes.get(parent).map(|node| node.what) {
                Some(What::Directory) => {}
                Some(What::Symlink) => {
                    let (path, link) = (path(), parent.to_owned());
                    remarks.push(Remark::ThroughLink { path, link });
                    break;
                }
                None if self.blind || BUILT_IN.contains(&parent) => {}
                None | Some(What::Other) => {
                    let (path, parent) = (path(), parent.to_owned());
                    remarks.push(Remark::NoParent { path, parent });
                    return;
                }
            }
        }
        if let Some(to) = &found.link_to {
            let (path, to) = (path(), to.clone());
            remarks.push(Remark::HardLink { path, to });
        }
        let node = Node::new(ramdisk, entry);
        if let Some(old) = self.nodes.get(&entry.path)
            && !old.same_directory(&node)
        {
            let (path, ramdisk) = (path(), old.ramdisk);
            remarks.push(Remark::Replaces { path, ramdisk });
        }
        self.nodes.insert(entry.path.clone(), node);
    }
}

impl Node {
    fn new(ramdisk: usize, entry: &Entry) -> Self {
        Self {
            ramdisk,
            what: match entry.kind {
                EntryKind::Directory => What::Directory,
                EntryKind::Symlink { .. } => What::Symlink,
                _ => What::Other,
            },
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
        }
    }

    /// A directory that is named again changes nothing.
    fn same_directory(&self, other: &Self) -> bool {
        self.what == What::Directory
            && other.what == What::Directory
            && self.mode == other.mode
            && self.owner == other.owner
    }
}
