//! Tables of figures, for a terminal and in Markdown.

use crate::statistics::Spread;

/// Cells by row; a row with one cell is a heading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns in line; all but the first and those of words to the right.
    pub(crate) fn text(&self) -> String {
        let mut widths: Vec<usize> = self.head.iter().map(|cell| cell.chars().count()).collect();
        for row in self.rows.iter().filter(|row| row.len() > 1) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let words =
            |column: usize| column == 0 || self.head.get(column).is_some_and(|head| head == "unit");
        let line = |row: &[String]| {
            let mut line = String::new();
            for (column, (width, cell)) in widths.iter().zip(row).enumerate() {
                let cell = if words(column) {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                };
                line.push_str(&cell);
                line.push_str("  ");
            }
            format!("{}\n", line.trim_end())
        };
        let mut text = line(&self.head);
        for row in &self.rows {
            text.push_str(&if row.len() == 1 { format!("{}\n", row.join("")) } else { line(row) });
        }
        text
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.head);
        let rules: Vec<String> = (0..self.head.len())
            .map(|column| if column == 0 { "---".to_owned() } else { "---:".to_owned() })
            .collect();
        text.push_str(&line(&rules));
        for row in &self.rows {
            if let [title] = row.as_slice() {
                let mut cells = vec![String::new(); self.head.len()];
                if let Some(first) = cells.first_mut() {
                    *first = format!("**{title}**");
                }
                text.push_str(&line(&cells));
            } else {
                text.push_str(&line(row));
            }
        }
        text
    }
}

/// Cells of these texts.
pub(crate) fn owned(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// The median, and the least and the greatest in brackets.
pub(crate) fn spread_text(spread: &Spread) -> String {
    let Spread { median, min, max } = *spread;
    if min == max {
        return number(median);
    }
    format!("{} ({}–{})", number(median), number(min), number(max))
}

/// Three digits that count.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_text_table_are_in_line() {
        let table = Table {
            head: owned(&["what", "n"]),
            rows: vec![owned(&["title"]), owned(&["a", "10"]), owned(&["bb", "2"])],
        };

        assert_eq!(table.text(), "what   n\ntitle\na     10\nbb     2\n");
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        assert_eq!(
            [0.0532, 1.234, 12.34, 123.4, 12345.6].map(number),
            ["0.053", "1.23", "12.3", "123", "12346"]
        );
    }
}
