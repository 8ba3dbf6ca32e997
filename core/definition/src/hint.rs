//! "Did you mean": the nearest of the words that would have been right.

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

/// A hint for `word` where one of `expected` should stand.
pub(crate) fn hint(word: &str, expected: &[&str]) -> Option<String> {
    if let Some(near) = nearest(word, expected) {
        return Some(format!("did you mean `{near}`?"));
    }
    if expected.is_empty() {
        return None;
    }
    let list: Vec<String> = expected.iter().map(|name| format!("`{name}`")).collect();
    Some(format!("what can stand here: {}", list.join(", ")))
}

/// The word at the least distance, if that is small beside the word's length.
fn nearest<'a>(word: &str, expected: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    expected
        .iter()
        .map(|name| (distance(word, name), *name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edit distance in which a swap of neighbours, the commonest slip, counts as one
/// (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let substitute = at(&last, j) + usize::from(x != y);
            let mut best = substitute.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = last;
        last = row;
    }
    at(&last, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_slips() {
        assert_eq!(distance("memory", "memory"), 0);
        assert_eq!(distance("memroy", "memory"), 1);
        assert_eq!(distance("memor", "memory"), 1);
        assert_eq!(distance("cpus", "boot"), 4);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn a_far_word_gets_the_list() {
        assert_eq!(
            hint("xyzzy", &["cpus", "boot"]).unwrap(),
            "what can stand here: `cpus`, `boot`"
        );
        assert_eq!(hint("xyzzy", &[]), None);
    }
}
