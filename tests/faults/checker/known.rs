//! What a client knows of what was committed: a set of numbers, small and quick, since crowds of clients
//! learn all of it again with each sync.

/// A set of numbers of facts.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    words: Vec<u64>,
}

impl Known {
    /// Adds a number; false if it was there.
    pub(super) fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        let word = self.words.get(number / 64);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// The numbers that are here and not there.
    pub(super) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        let words = self.words.iter().enumerate();
        words.flat_map(move |(place, word)| {
            let left = word & !other.words.get(place).unwrap_or(&0);
            (0..64)
                .filter(move |bit| left & (1 << bit) != 0)
                .map(move |bit| place * 64 + bit)
        })
    }
}

#[test]
fn numbers_are_known_once_they_were_inserted() {
    let (mut one, mut other) = (Known::default(), Known::default());
    for number in [0, 63, 64, 1_000] {
        assert!(!one.contains(number));
        assert!(one.insert(number) && !one.insert(number));
        assert!(one.contains(number));
    }
    other.insert(63);
    other.insert(2_000);
    assert_eq!(one.without(&other).collect::<Vec<_>>(), [0, 64, 1_000]);
    assert_eq!(other.without(&one).collect::<Vec<_>>(), [2_000]);
}
