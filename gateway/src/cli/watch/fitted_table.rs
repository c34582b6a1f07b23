//! A table that leaves columns away until it fits the terminal. Pure.

use super::super::table::{GAP, Table};

/// A column: its heading, and its rank. The columns with the highest rank are left away first, those of rank 0 never.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) heading: &'static str,
    pub(super) rank: u8,
}

/// Makes the list of columns out of headings and ranks.
pub(super) const fn column(heading: &'static str, rank: u8) -> Column {
    Column { heading, rank }
}

/// The heading and the rows as lines, in as many of the columns as fit `width`. Columns without a value in any row are
/// left away, too.
pub(super) fn render<const N: usize>(columns: &[Column; N], rows: &[[String; N]], width: usize) -> Vec<String> {
    let mut table = Table::new(&columns.map(|column| column.heading));
    rows.iter().for_each(|row| table.row(row.clone()));
    let widths = table.widths();
    let mut kept: Vec<usize> = (0..N).filter(|at| rows.iter().any(|row| !row[*at].is_empty())).collect();
    let total = |kept: &[usize]| kept.iter().map(|at| widths[*at] + GAP).sum::<usize>().saturating_sub(GAP);
    while total(&kept) > width {
        let ranked = kept.iter().copied().filter(|at| columns[*at].rank > 0);
        let Some(worst) = ranked.max_by_key(|at| columns[*at].rank) else { break };
        kept.retain(|at| *at != worst);
    }
    table.keep(&kept);
    table.render().lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_left_away_by_rank_until_the_rest_fits() {
        let columns = [column("STAGE", 0), column("HOST", 2), column("LINK", 1), column("NEVER", 0)];
        let row = |stage: &str| [stage.to_owned(), "mini-1".to_owned(), "80 µs".to_owned(), String::new()];
        let rows = [row("left"), row("right")];
        assert_eq!(render(&columns, &rows, 80)[1], "left   mini-1  80 µs");
        assert_eq!(render(&columns, &rows, 19), ["STAGE  LINK", "left   80 µs", "right  80 µs"]);
        assert_eq!(render(&columns, &rows, 3), ["STAGE", "left", "right"]);
    }
}
