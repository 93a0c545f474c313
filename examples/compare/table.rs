//! Tables in Markdown: their lines, and numbers as people read them.

use std::fmt::Write;

use super::spread::Spread;

/// The middle of some figures with their quartiles, or the only one.
pub(crate) fn cell(figures: Vec<f64>, scale: f64, decimals: usize) -> String {
    let spread = figures.len() > 1;
    let Some(Spread { low, median, high }) = Spread::of(figures) else {
        return "–".to_owned();
    };
    let [low, median, high] = [low, median, high].map(|figure| number(figure * scale, decimals));
    match spread {
        true => format!("{median} ({low}–{high})"),
        false => median,
    }
}

/// Writes a line with these cells.
pub(crate) fn write_row(text: &mut String, first: &str, cells: impl IntoIterator<Item = String>) {
    write!(text, "| {first} |").expect("a string takes all");
    for cell in cells {
        write!(text, " {cell} |").expect("a string takes all");
    }
    text.push('\n');
}

/// A number with its thousands apart.
pub(crate) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let whole = text.split('.').next().unwrap_or(&text);
    let digits = whole.trim_start_matches('-').len();
    let mut out = String::with_capacity(text.len() + digits / 3);
    let begin = whole.len() - digits;
    for (place, character) in text.chars().enumerate() {
        let in_whole = place > begin && place < whole.len();
        if in_whole && (whole.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_thousands() {
        for (value, decimals, text) in [
            (0.126, 2, "0.13"),
            (999.0, 0, "999"),
            (1_000.0, 0, "1,000"),
            (-123_456.7, 1, "-123,456.7"),
            (12_345_678.0, 0, "12,345,678"),
        ] {
            assert_eq!(number(value, decimals), text);
        }
        assert_eq!(cell(Vec::new(), 1.0, 0), "–");
        assert_eq!(cell(vec![1.0, 3.0], 1.0, 1), "2.0 (1.5–2.5)");
    }
}
