//! The size rule: no file over 800 lines, no function over 80, and no stub
//! that would panic. What is over stands in `xtask/size-exceptions.txt` with
//! the size it has and a reason; an entry may not grow, an entry that isn't
//! needed any more is an error, and their number is bounded here, so that the
//! list only shrinks.

use crate::report::Failure;
use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use std::fs;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::Visit;

const FILE_LINES_AT_MOST: usize = 800;
const FUNCTION_LINES_AT_MOST: usize = 80;
/// May only be lowered.
const EXCEPTIONS_AT_MOST: usize = 0;
const EXCEPTIONS_FILE: &str = "xtask/size-exceptions.txt";
const STUBS: [&str; 2] = ["todo", "unimplemented"];

/// Something over its limit: a file, or a function as `file::function`.
#[derive(Debug, PartialEq, Eq)]
struct Oversize {
    what: String,
    lines: usize,
}

/// One line of the exceptions file: `WHAT LINES reason…`.
#[derive(Debug, PartialEq, Eq)]
struct Exception {
    what: String,
    lines: usize,
}

/// Measures every Rust file below `root`.
///
/// # Errors
/// Lists every file and function over its limit that isn't excepted, every
/// stub, and every exception that has become untrue.
pub(crate) fn check(root: &Path) -> Result<()> {
    let listed = fs::read_to_string(root.join(EXCEPTIONS_FILE))
        .with_context(|| format!("could not read {EXCEPTIONS_FILE}"))?;
    let exceptions = parse_exceptions(&listed)?;
    let mut oversizes = Vec::new();
    let mut complaints = Vec::new();
    for file in rust_files(root)? {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("could not read {name}"))?;
        let measured = measure(&name, &text).with_context(|| format!("could not parse {name}"))?;
        oversizes.extend(measured.oversizes);
        complaints.extend(measured.stubs);
    }
    complaints.extend(compare(&oversizes, &exceptions));
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        format!("the size rule is broken:\n    {}", complaints.join("\n    ")),
        "split the file or function by idea; what can't be split goes to the exceptions file with a reason",
    )
    .into())
}

fn compare(oversizes: &[Oversize], exceptions: &[Exception]) -> Vec<String> {
    let mut complaints = Vec::new();
    for over in oversizes {
        match exceptions.iter().find(|exception| exception.what == over.what) {
            Some(exception) if over.lines <= exception.lines => {}
            Some(exception) => complaints.push(format!(
                "{} has grown to {} lines, {EXCEPTIONS_FILE} allows {}",
                over.what, over.lines, exception.lines
            )),
            None => complaints.push(format!("{} has {} lines", over.what, over.lines)),
        }
    }
    for exception in exceptions {
        if !oversizes.iter().any(|over| over.what == exception.what) {
            complaints.push(format!("{EXCEPTIONS_FILE}: {} is not needed", exception.what));
        }
    }
    if exceptions.len() > EXCEPTIONS_AT_MOST {
        complaints.push(format!(
            "{EXCEPTIONS_FILE} has {} entries, at most {EXCEPTIONS_AT_MOST} are allowed",
            exceptions.len()
        ));
    }
    complaints
}

fn parse_exceptions(text: &str) -> Result<Vec<Exception>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let (what, lines, reason) = (words.next(), words.next(), words.next());
            let (Some(what), Some(lines), Some(_reason)) = (what, lines, reason) else {
                anyhow::bail!("{EXCEPTIONS_FILE}: `{line}` is not `WHAT LINES reason`");
            };
            let lines = lines
                .parse()
                .with_context(|| format!("{EXCEPTIONS_FILE}: `{line}` has no number of lines"))?;
            Ok(Exception { what: what.to_owned(), lines })
        })
        .collect()
}

struct Measured {
    oversizes: Vec<Oversize>,
    stubs: Vec<String>,
}

fn measure(name: &str, text: &str) -> Result<Measured> {
    let mut oversizes = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_AT_MOST {
        oversizes.push(Oversize { what: name.to_owned(), lines });
    }
    let tokens: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut stubs = Vec::new();
    find_stubs(name, tokens, &mut stubs);
    let mut functions = Functions { file: name, found: oversizes };
    functions.visit_file(&syn::parse_file(text)?);
    Ok(Measured { oversizes: functions.found, stubs })
}

/// Looks at tokens, not at syntax, so that stubs inside macros are found and
/// those in comments and strings are not.
fn find_stubs(file: &str, tokens: TokenStream, found: &mut Vec<String>) {
    let mut previous: Option<proc_macro2::Ident> = None;
    for token in tokens {
        match token {
            TokenTree::Group(group) => find_stubs(file, group.stream(), found),
            TokenTree::Ident(ident) => {
                previous = Some(ident);
                continue;
            }
            TokenTree::Punct(mark) if mark.as_char() == '!' => {
                if let Some(ident) = previous.filter(|ident| STUBS.iter().any(|stub| ident == stub))
                {
                    let line = ident.span().start().line;
                    found.push(format!("{file}:{line}: a stub, `{ident}!`"));
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        previous = None;
    }
}

struct Functions<'a> {
    file: &'a str,
    found: Vec<Oversize>,
}

impl Functions<'_> {
    /// Counts from the signature to the closing brace; attributes and doc
    /// comments are not part of a function's size.
    fn consider(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.span().start().line;
        let last = block.brace_token.span.close().end().line;
        let lines = last.saturating_sub(first) + 1;
        if lines > FUNCTION_LINES_AT_MOST {
            let what = format!("{}::{}", self.file, signature.ident);
            self.found.push(Oversize { what, lines });
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.consider(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.consider(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.consider(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}

/// All Rust files below a folder, in order; build output and hidden folders
/// are left out.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(rust_files(&path)?);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function_of(lines: usize) -> String {
        let body = "    work();\n".repeat(lines.saturating_sub(2));
        format!("/// Doc.\n#[inline]\nfn long() {{\n{body}}}\n")
    }

    #[test]
    fn a_function_of_80_lines_is_allowed_and_one_of_81_is_not() {
        let at_limit = measure("a.rs", &function_of(80)).unwrap();
        let over = measure("a.rs", &function_of(81)).unwrap();

        assert_eq!(at_limit.oversizes, []);
        assert_eq!(over.oversizes, [Oversize { what: "a.rs::long".into(), lines: 81 }]);
    }

    #[test]
    fn functions_in_impls_and_in_functions_are_measured() {
        let text =
            format!("impl A {{ {} }}\nfn outer() {{ {} }}", function_of(90), function_of(90));

        let measured = measure("a.rs", &text).unwrap();

        let names: Vec<_> = measured.oversizes.iter().map(|over| over.what.as_str()).collect();
        assert_eq!(names, ["a.rs::long", "a.rs::outer", "a.rs::long"]);
    }

    #[test]
    fn a_file_of_801_lines_is_over() {
        let measured = measure("a.rs", &"// line\n".repeat(801)).unwrap();

        assert_eq!(measured.oversizes, [Oversize { what: "a.rs".into(), lines: 801 }]);
    }

    #[test]
    fn stubs_are_found_in_macros_but_not_in_comments_or_strings() {
        let text = "// todo!()\nfn a() { let s = \"todo!()\"; vec![\nunimplemented!()] }";

        let measured = measure("a.rs", text).unwrap();

        assert_eq!(measured.stubs, ["a.rs:3: a stub, `unimplemented!`"]);
    }

    #[test]
    fn an_exception_may_neither_grow_nor_outlive_its_need() {
        let oversizes = [Oversize { what: "a.rs".into(), lines: 900 }];
        let exceptions = parse_exceptions("# why\na.rs 850 a table\nb.rs 900 a table\n").unwrap();

        let complaints = compare(&oversizes, &exceptions);

        assert!(complaints.iter().any(|text| text.contains("a.rs has grown to 900")));
        assert!(complaints.iter().any(|text| text.contains("b.rs is not needed")));
    }

    #[test]
    fn an_exception_without_a_reason_is_refused() {
        assert!(parse_exceptions("a.rs 850").is_err());
    }
}
