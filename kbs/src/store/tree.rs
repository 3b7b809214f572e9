//! The Merkle tree of RFC 6962 §2.1 over the entries' hashes, kept as its right edge: what a checkpoint commits to.

use aws_lc_rs::digest::{Context, SHA256};

pub(crate) type Node = [u8; 32];

/// Roots of the full subtrees, largest first: one per bit of `size`.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Tree {
    size: u64,
    edge: Vec<Node>,
}

impl Tree {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn push(&mut self, leaf: &[u8]) {
        let mut node = hash(&[&[0], leaf]);
        let mut rest = self.size;
        while rest & 1 == 1 {
            if let Some(left) = self.edge.pop() {
                node = hash(&[&[1], &left, &node]);
            }
            rest >>= 1;
        }
        self.edge.push(node);
        self.size += 1;
    }

    pub(crate) fn root(&self) -> Node {
        let edge = self.edge.iter().rev().copied();
        edge.reduce(|right, left| hash(&[&[1], &left, &right]))
            .unwrap_or_else(|| hash(&[]))
    }
}

fn hash(parts: &[&[u8]]) -> Node {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut node = [0; 32];
    node.copy_from_slice(context.finish().as_ref());
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference tree of Certificate Transparency's own tests.
    #[test]
    fn the_roots_are_those_of_certificate_transparency() {
        let leaves = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = Tree::default();
        assert_eq!(
            hex::encode(tree.root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for (leaf, root) in leaves.iter().zip(roots) {
            tree.push(&hex::decode(leaf).unwrap());
            assert_eq!(hex::encode(tree.root()), root, "size {}", tree.size());
        }
    }
}
