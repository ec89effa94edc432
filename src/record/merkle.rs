//! The tree of hashes over the records between two checkpoints [RFC 9162 §2.1], kept in as many hashes as it is high.

use super::chain::Leaf;

/// The roots of the full subtrees of the records since a checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Frontier {
    /// The number of the first record in it.
    pub(super) from: u64,
    /// Height and root of each full subtree, the highest first.
    full: Vec<(u32, Leaf)>,
}

impl Frontier {
    /// A tree that begins with the record of this number and has none yet.
    pub(super) fn begin(from: u64) -> Frontier {
        Frontier { from, full: Vec::new() }
    }

    /// Adds the next record.
    pub(super) fn push(&mut self, leaf: Leaf) {
        let (mut height, mut node) = (0, leaf);
        while let Some((_, left)) = self.full.pop_if(|(full, _)| *full == height) {
            node = Leaf::node(left, node);
            height += 1;
        }
        self.full.push((height, node));
    }

    /// Whether there is at most one record in it.
    pub(super) fn is_bare(&self) -> bool {
        self.full.iter().map(|(height, _)| height + 1).sum::<u32>() <= 1
    }

    /// The root over all of them.
    pub(super) fn root(&self) -> Leaf {
        let roots = self.full.iter().rev().map(|(_, root)| *root);
        roots.reduce(|right, left| Leaf::node(left, right)).unwrap_or_else(Leaf::nothing)
    }
}

/// The hashes beside the way from one leaf to the root, the lowest first [RFC 9162 §2.1.3.1].
pub(super) fn path(leaves: &[Leaf], index: usize) -> Vec<Leaf> {
    let Some((left, right)) = halves(leaves) else { return Vec::new() };
    let (mut path, beside) = match index.checked_sub(left.len()) {
        None => (path(left, index), right),
        Some(index) => (path(right, index), left),
    };
    path.push(root(beside));
    path
}

fn root(leaves: &[Leaf]) -> Leaf {
    let mut frontier = Frontier::begin(0);
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    frontier.root()
}

/// Split at the largest power of two that leaves something on the right; `None` for fewer than two leaves.
fn halves(leaves: &[Leaf]) -> Option<(&[Leaf], &[Leaf])> {
    (leaves.len() > 1).then(|| leaves.split_at_checked(leaves.len().next_power_of_two() / 2))?
}

/// The root that a leaf and the hashes beside its way lead to; `None` when there are too many or too few of them
/// [RFC 9162 §2.1.3.2].
pub(super) fn root_of(leaf: Leaf, index: u64, size: u64, path: &[Leaf]) -> Option<Leaf> {
    let (mut at, mut last) = (index, size.checked_sub(1)?);
    if at > last {
        return None;
    }
    let mut node = leaf;
    for beside in path {
        if last == 0 {
            return None;
        }
        if at % 2 == 1 || at == last {
            node = Leaf::node(*beside, node);
            while at % 2 == 0 && at != 0 {
                (at, last) = (at / 2, last / 2);
            }
        } else {
            node = Leaf::node(node, *beside);
        }
        (at, last) = (at / 2, last / 2);
    }
    (last == 0).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u8) -> Vec<Leaf> {
        (0..count).map(|byte| Leaf::of(&[byte])).collect()
    }

    #[test]
    fn every_leaf_of_every_small_tree_leads_to_its_root_and_no_other_leaf_does() {
        for size in 1..=40 {
            let leaves = leaves(size);
            let whole = root(&leaves);
            for (index, leaf) in leaves.iter().enumerate() {
                let path = path(&leaves, index);
                assert_eq!(
                    root_of(*leaf, index as u64, size.into(), &path),
                    Some(whole),
                    "{index} of {size}"
                );
                let other = Leaf::of(b"another");
                assert_ne!(root_of(other, index as u64, size.into(), &path), Some(whole));
                let longer = [path.as_slice(), &[other]].concat();
                assert_eq!(root_of(*leaf, index as u64, size.into(), &longer), None);
            }
        }
    }

    #[test]
    fn the_root_of_the_standard_s_seven_leaves_is_built_as_it_says() {
        let [a, b, c, d, e, f, g] = leaves(7).try_into().unwrap();
        let (abcd, ef) = (Leaf::node(Leaf::node(a, b), Leaf::node(c, d)), Leaf::node(e, f));
        assert_eq!(root(&[a, b, c, d, e, f, g]), Leaf::node(abcd, Leaf::node(ef, g)));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(root(&[]).to_string(), empty);
    }
}
