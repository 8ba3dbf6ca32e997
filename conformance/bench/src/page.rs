//! A page of the documentation with figures that the program writes, between two markers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Replaces what `bench {what}` wrote into the page (its path in the repository) the last time.
///
/// # Errors
/// When the page lacks its markers, or can't be read or written.
pub(crate) fn replace(root: &Path, page: &str, what: &str, new: &str) -> Result<()> {
    let file = root.join(page);
    let text = fs::read_to_string(&file).with_context(|| format!("could not read {page}"))?;
    let new = replaced(&text, what, new).with_context(|| format!("in {page}"))?;
    fs::write(&file, new).with_context(|| format!("could not write {page}"))
}

fn replaced(text: &str, what: &str, new: &str) -> Result<String> {
    let begin = format!("<!-- bench {what}: begin -->");
    let end = format!("<!-- bench {what}: end -->");
    let (before, rest) = text.split_once(&begin).with_context(|| format!("there is no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("there is no {end}"))?;
    Ok(format!("{before}{begin}\n{new}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let begin = "<!-- bench net: begin -->";
        let end = "<!-- bench net: end -->";
        let page = format!("head\n{begin}\nold\n{end}\ntail\n");

        let new = replaced(&page, "net", "new\n").unwrap();

        assert_eq!(new, format!("head\n{begin}\nnew\n{end}\ntail\n"));
    }

    #[test]
    fn a_page_without_markers_is_an_error() {
        assert!(replaced("<!-- bench net: begin -->", "net", "new").is_err());
        assert!(replaced("nothing here", "net", "new").is_err());
    }
}
