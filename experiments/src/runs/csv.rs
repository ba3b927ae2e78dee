//! CSV as written by this project: a header, comma-separated cells, `\n`, quotes where RFC 4180
//! needs them. Floats are in their shortest form that reads back to the same bits.

use std::borrow::Cow;
use std::fmt::Write;

/// Builds one line.
#[derive(Clone, Debug, Default)]
pub struct Line {
    text: String,
    cells: usize,
}

impl Line {
    /// An empty line.
    pub fn new() -> Self {
        Self::default()
    }

    fn separate(&mut self) {
        if self.cells > 0 {
            self.text.push(',');
        }
        self.cells += 1;
    }

    /// Appends text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.separate();
        if text.contains([',', '"', '\n', '\r']) {
            self.text.push('"');
            self.text.push_str(&text.replace('"', "\"\""));
            self.text.push('"');
        } else {
            self.text.push_str(text);
        }
        self
    }

    /// Appends a whole number.
    pub fn integer(&mut self, value: u64) -> &mut Self {
        self.separate();
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{value}");
        self
    }

    /// Appends a float; an empty cell for `None`. Infinities and NaN as pandas and R read them.
    pub fn number(&mut self, value: impl Into<Option<f64>>) -> &mut Self {
        self.separate();
        if let Some(value) = value.into() {
            let _ = match value {
                v if v.is_nan() => write!(self.text, "NaN"),
                v if v.is_infinite() => write!(self.text, "{}Inf", if v < 0.0 { "-" } else { "" }),
                v => write!(self.text, "{v:?}"),
            };
        }
        self
    }

    /// The line, without its end.
    pub fn finish(&self) -> String {
        self.text.clone()
    }
}

/// A table read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Table<'t> {
    columns: Vec<Cow<'t, str>>,
    cells: Vec<Cow<'t, str>>,
}

impl<'t> Table<'t> {
    /// Reads `text`.
    ///
    /// # Errors
    /// The line (from 1) and what is wrong with it: a number of cells that is not the header's, an
    /// open quote.
    pub fn parse(text: &'t str) -> Result<Self, (usize, String)> {
        let mut table = Table { columns: Vec::new(), cells: Vec::new() };
        let mut rest = text;
        let mut line = 0;
        while !rest.is_empty() {
            line += 1;
            let before = table.cells.len();
            rest = read_line(rest, &mut table.cells).map_err(|reason| (line, reason))?;
            if line == 1 {
                table.columns = std::mem::take(&mut table.cells);
            } else if table.cells.len() - before != table.columns.len() {
                let (found, expected) = (table.cells.len() - before, table.columns.len());
                return Err((line, format!("{found} cells where the header has {expected}")));
            }
        }
        Ok(table)
    }

    /// Names of the columns.
    pub fn columns(&self) -> &[Cow<'t, str>] {
        &self.columns
    }

    /// Number of rows, the header not counted.
    pub fn len(&self) -> usize {
        self.cells.len().checked_div(self.columns.len()).unwrap_or(0)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Position of the column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// A cell; empty for a column that is not there. Panics if there is no such row.
    pub fn text(&self, row: usize, column: Option<usize>) -> &str {
        column.map_or("", |column| &self.cells[row * self.columns.len() + column])
    }

    /// A cell as a number; `None` where it is empty or text.
    pub fn number(&self, row: usize, column: Option<usize>) -> Option<f64> {
        self.text(row, column).parse().ok()
    }
}

/// Reads the cells of the first line of `text` and returns what follows it.
fn read_line<'t>(text: &'t str, cells: &mut Vec<Cow<'t, str>>) -> Result<&'t str, String> {
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (cell, after) = read_quoted(quoted)?;
            cells.push(Cow::Owned(cell));
            rest = after;
        } else {
            let end = rest.find([',', '\n']).unwrap_or(rest.len());
            cells.push(Cow::Borrowed(&rest[..end]));
            rest = &rest[end..];
        }
        match rest.as_bytes().first() {
            Some(b',') => rest = &rest[1..],
            Some(b'\n') => return Ok(&rest[1..]),
            None => return Ok(rest),
            Some(_) => return Err("text after a closing quote".to_owned()),
        }
    }
}

fn read_quoted(text: &str) -> Result<(String, &str), String> {
    let mut cell = String::new();
    let mut rest = text;
    loop {
        let Some(end) = rest.find('"') else { return Err("a quote is not closed".to_owned()) };
        cell.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                cell.push('"');
                rest = more;
            }
            None => return Ok((cell, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_come_back_bit_for_bit_and_text_with_its_quotes() {
        let values = [0.1, 1e-300, -0.0, 1.0 / 3.0, 123_456_789.0, 5e22, f64::MIN_POSITIVE / 8.0];
        let mut text = String::from("a,b\n");
        for value in values {
            text += &Line::new().text("x, \"y\"\nz").number(value).finish();
            text.push('\n');
        }
        let table = Table::parse(&text).unwrap();
        assert_eq!(table.len(), values.len());
        for (row, value) in values.iter().enumerate() {
            assert_eq!(table.text(row, table.column("a")), "x, \"y\"\nz");
            assert_eq!(table.number(row, Some(1)).unwrap().to_bits(), value.to_bits());
        }
    }

    #[test]
    fn empty_and_infinite_cells_have_their_forms() {
        let line = Line::new().number(None).number(f64::INFINITY).integer(7).finish();
        assert_eq!(line, ",Inf,7");
        let text = format!("a,b,c\n{line}\n");
        let table = Table::parse(&text).unwrap();
        assert_eq!(table.number(0, Some(0)), None);
        assert_eq!(table.number(0, Some(1)), Some(f64::INFINITY));
        assert_eq!(table.number(0, table.column("missing")), None);
    }

    #[test]
    fn ragged_and_open_lines_are_refused_with_their_number() {
        assert_eq!(Table::parse("a,b\n1,2\n3\n").unwrap_err().0, 3);
        assert_eq!(Table::parse("a,b\n\"1,2\n").unwrap_err().0, 2);
        assert_eq!(Table::parse("a,b\n\"1\"x,2\n").unwrap_err().0, 2);
    }
}
