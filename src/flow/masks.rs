//! Up to 64 bytes of a text, each of which is one bit of a number for all that are letters, or digits, or white space.

use wide::u8x16;

use super::canon::{DIGIT, INNER_UPPER, LOWER, UPPER};

/// Up to 64 bytes of a text, and which of them are what: a bit for each, the first the lowest.
#[derive(Clone, Copy)]
pub struct Block {
    digits: u64,
    upper: u64,
    /// Letters and digits.
    named: u64,
    /// White space and what controls, which end a piece. So does what is not there.
    spaces: u64,
    /// What is beyond ASCII.
    wide: u64,
}

/// The bit that tells a letter in lower case from a capital.
const CASE: u8 = 0x20;

/// Which bytes are among so many from one on.
#[inline]
fn among(bytes: u8x16, first: u8, count: u8) -> u8x16 {
    let place = bytes - u8x16::splat(first);
    place.simd_eq(place.min(u8x16::splat(count - 1)))
}

/// So many bytes are copied at once: nearly every word is shorter.
const COPIED_BYTES: usize = 16;
/// What a block takes while its words are written, in bytes: more are copied than a word has.
pub const ROOM_BYTES: usize = Block::BYTES + COPIED_BYTES;

/// The bytes of a block with letters and digits in lower case, and room after it.
pub struct Folded([u8; ROOM_BYTES]);

impl Folded {
    /// Of the first bytes of a text.
    #[inline]
    pub fn of(text: &[u8]) -> Folded {
        let mut folded = [0; ROOM_BYTES];
        match (text.first_chunk::<{ Block::BYTES }>(), folded.first_chunk_mut::<{ Block::BYTES }>()) {
            (Some(whole), Some(to)) => {
                to.iter_mut().zip(whole).for_each(|(to, from)| *to = from | CASE);
            }
            _ => {
                if let Some(there) = folded.get_mut(..text.len()) {
                    there.copy_from_slice(text);
                }
                folded.iter_mut().for_each(|byte| *byte |= CASE);
            }
        }
        Folded(folded)
    }

    /// Copies so many letters and digits from one place to another, and perhaps what stands after them.
    #[inline]
    pub fn copy(&self, at: usize, count: usize, to: &mut [u8; ROOM_BYTES], place: usize) {
        let mut copied = 0;
        loop {
            // Within bounds by the last bits alone, without asking.
            let (at, place) = ((at + copied) % Block::BYTES, (place + copied) % Block::BYTES);
            let from = self.0.get(at..).and_then(<[u8]>::first_chunk::<COPIED_BYTES>);
            let to = to.get_mut(place..).and_then(<[u8]>::first_chunk_mut::<COPIED_BYTES>);
            if let (Some(from), Some(to)) = (from, to) {
                *to = *from;
            }
            copied += COPIED_BYTES;
            if copied >= count {
                return;
            }
        }
    }
}

/// What some bytes are the beginning of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// Of a piece.
    Piece,
    /// Of nothing: they go on.
    Nothing,
}

/// Where words begin and end, in order.
#[derive(Clone, Copy)]
pub struct Runs {
    starts: u64,
    ends: u64,
}

impl Runs {
    /// How many there are.
    #[inline]
    pub fn len(self) -> usize {
        self.starts.count_ones() as usize
    }

    /// Where the next one begins, if there is one.
    #[inline]
    pub fn start(self) -> Option<usize> {
        (self.starts != 0).then(|| self.starts.trailing_zeros() as usize)
    }

    /// Takes the next one: where it begins, and where it ends. There must be one.
    #[inline]
    pub fn take(&mut self) -> (usize, usize) {
        let run = (self.starts.trailing_zeros() as usize, self.ends.trailing_zeros() as usize);
        self.starts &= self.starts.wrapping_sub(1);
        self.ends &= self.ends.wrapping_sub(1);
        run
    }
}

impl Block {
    /// So many bytes.
    pub const BYTES: usize = 64;

    /// Of the first bytes of a text; what is not there is nothing.
    #[inline]
    pub fn of(text: &[u8]) -> Block {
        match text.first_chunk::<{ Block::BYTES }>() {
            // Without a branch, so that many bytes are compared at once.
            Some(whole) => {
                let parts = (0..).step_by(16).zip(whole.as_chunks().0);
                parts.fold(Block::nothing(0), |block, (at, part)| block.with(part, at))
            }
            None => {
                let mut padded = [0; Block::BYTES];
                if let Some(there) = padded.get_mut(..text.len()) {
                    there.copy_from_slice(text);
                }
                let parts = (0..text.len()).step_by(16).zip(padded.as_chunks().0);
                let block = Block::nothing(text.len().next_multiple_of(16));
                parts.fold(block, |block, (at, part)| block.with(part, at))
            }
        }
    }

    /// Of nothing from a byte on.
    #[inline]
    fn nothing(from: usize) -> Block {
        let spaces = if from < Block::BYTES && from > 0 { u64::MAX << from } else { 0 };
        Block { digits: 0, upper: 0, named: 0, spaces, wide: 0 }
    }

    /// With sixteen more, from a byte on.
    #[inline]
    fn with(mut self, bytes: &[u8; 16], at: usize) -> Block {
        let bytes = u8x16::new(*bytes);
        let bits = |those: u8x16| u64::from(those.to_bitmask()) << at;
        let (digits, upper) = (among(bytes, b'0', 10), among(bytes, b'A', 26));
        self.digits |= bits(digits);
        self.upper |= bits(upper);
        self.named |= bits(digits | among(bytes | u8x16::splat(CASE), b'a', 26));
        self.spaces |= bits(among(bytes, 0, b' ' + 1));
        self.wide |= bits(bytes);
        self
    }

    /// How many of the first bytes, of so many that are left of the text, are pieces that are whole and all ASCII, and what
    /// ends them.
    #[inline]
    pub fn whole_pieces(&self, left: usize) -> usize {
        // Only what stands before the first that is beyond ASCII.
        let before = self.wide & self.wide.wrapping_neg();
        let spaces = self.spaces & before.wrapping_sub(1);
        (u64::BITS - spaces.leading_zeros()).min(u32::try_from(left).unwrap_or(u32::MAX)) as usize
    }

    /// The words of so many of the first bytes, after which one ends.
    #[inline]
    pub fn runs(&self, count: usize) -> Runs {
        let begun = self.named & (u64::MAX >> (Block::BYTES - count));
        Runs { starts: begun & !(begun << 1), ends: !begun & (begun << 1) }
    }

    /// Whether of so many of the first bytes each word is a piece of more than one letter, and has no digit, nor a capital
    /// after its first letter.
    #[inline]
    pub fn is_plain(&self, count: usize) -> bool {
        let Runs { starts, ends } = self.runs(count);
        let within = u64::MAX >> (Block::BYTES - count);
        // After a word nothing but one or two signs, and white space.
        let spaces = self.spaces | self.spaces >> 1 | self.spaces >> 2 & !(self.named >> 1);
        let odd = (self.digits | self.upper & !starts) & within;
        odd | (ends & !spaces) | (starts & (ends >> 1)) == 0
    }

    /// The marks of a word that begins here, where all are plain.
    #[inline]
    pub fn plain_marks(&self, at: usize) -> u8 {
        LOWER | ((self.upper >> at & 1) as u8 * UPPER)
    }

    /// Whether a byte is white space.
    #[inline]
    pub fn has_space(&self, at: usize) -> bool {
        self.spaces >> at & 1 == 1
    }

    /// How many letters and digits there are from here on.
    #[inline]
    pub fn run(&self, at: usize) -> usize {
        (!(self.named >> at)).trailing_zeros() as usize
    }

    /// The marks of so many letters and digits from here on, which are at least one.
    #[inline]
    pub fn marks(&self, at: usize, run: usize, begins: Begins) -> u8 {
        let within = u64::MAX >> (Block::BYTES - run) << at;
        if (self.digits | self.upper) & within == 0 {
            return LOWER;
        }
        let inner = match begins {
            Begins::Piece => within & (within - 1),
            Begins::Nothing => within,
        };
        let mark = |those: u64, mark: u8| if those == 0 { 0 } else { mark };
        mark(self.digits & within, DIGIT)
            | mark(self.upper & within, UPPER)
            | mark(within & !(self.digits | self.upper), LOWER)
            | mark(self.upper & inner, INNER_UPPER)
    }
}
