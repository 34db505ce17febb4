//! Sequences as people read them before anything is computed.

use kit::rows::{Item, Pair};
use kit::{Context, Piece, Rendering, Result, Table};
use lm::{Refusal, Sequence, Text};

use crate::error::lm_error;
use crate::reader::SequenceReader;

/// The training rows that a rendering shows.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// The rejected side of pairs.
    pub rejected: bool,
    /// KTO's mismatched response of items.
    pub mismatched: bool,
    /// Labels and weights.
    pub labels: bool,
}

/// The sequences of the first rows of `from`, in the order of the table.
///
/// # Errors
/// When a row cannot be read, or when the stage would stop at it.
pub fn of_rows(context: &Context<'_>, reader: &SequenceReader, rows: usize, shown: Shown) -> Result<Vec<Rendering>> {
    let mut renderings = Vec::new();
    let label = |name: &str, label: f64, weight: f64| match shown.labels {
        true => format!(", {name} {label}, weight {weight}"),
        false => String::new(),
    };
    if context.table_of("from") == Some(Table::Items) {
        for row in context.rows::<Item>("from")?.take(rows) {
            let row = row?;
            let title = |part: &str| format!("item {}, {part}{}", row.item_id, label("label", row.label, row.weight));
            match reader.item(&row, shown.mismatched)? {
                Ok(sequences) => {
                    renderings.push(of_sequence(&reader.text, title("response"), &sequences.response)?);
                    if let Some(mismatched) = &sequences.mismatched {
                        let title = title("mismatched response");
                        renderings.push(of_sequence(&reader.text, title, &mismatched.sequence)?);
                    }
                }
                Err(refused) => {
                    renderings.push(of_refusal(title(refused.part.unwrap_or("response")), &refused.refusal))
                }
            }
        }
        return Ok(renderings);
    }
    for row in context.rows::<Pair>("from")?.take(rows) {
        let row = row?;
        let title = |side: &str| format!("pair {}, {side}{}", row.pair_id, label("p_hat", row.p_hat, row.weight));
        match reader.pair(&row)? {
            Ok([chosen, rejected]) => {
                renderings.push(of_sequence(&reader.text, title("chosen"), &chosen)?);
                if shown.rejected {
                    renderings.push(of_sequence(&reader.text, title("rejected"), &rejected)?);
                }
            }
            Err(refused) => renderings.push(of_refusal(title("both sides"), &refused.refusal)),
        }
    }
    Ok(renderings)
}

/// A row that will be rejected, or at which the stage will stop.
pub fn of_refusal(title: String, refusal: &Refusal) -> Rendering {
    match refusal {
        Refusal::Displaced { .. } => Rendering::stopped(title, &refusal.to_string()),
        other => Rendering::refused(title, other.reason(), &other.to_string()),
    }
}

/// A sequence as its model sees it.
///
/// # Errors
/// When the tokenizer cannot spell the tokens.
pub fn of_sequence(text: &Text, title: String, sequence: &Sequence) -> Result<Rendering> {
    let pieces = text.pieces(sequence).map_err(lm_error)?.into_iter().map(|(text, tokens, scored)| Piece {
        text,
        ids: sequence.ids[tokens].to_vec(),
        scored,
    });
    let pieces: Vec<Piece> = pieces.collect();
    let (facts, warnings) = remarks(sequence, &pieces, text.count_bos(sequence));
    Ok(Rendering { title, pieces, facts, warnings })
}

/// Counts, and what probably is not wanted; `bos` is the number of BOS tokens where the tokenizer has one.
fn remarks(sequence: &Sequence, pieces: &[Piece], bos: Option<usize>) -> (Vec<String>, Vec<String>) {
    let (all, start) = (sequence.ids.len(), sequence.start);
    let scored: usize = pieces.iter().filter(|piece| piece.scored).map(|piece| piece.ids.len()).sum();
    let left_out = match all - start - scored {
        0 => String::new(),
        others => format!(", {others} after them not scored"),
    };
    let mut facts = vec![format!("{all} tokens: {start} before, {scored} scored{left_out}")];
    let mut warnings = Vec::new();
    if sequence.displaced {
        let text = "the chat template writes the prompt in another way when an answer follows; this is what \
                    `on_prefix_mismatch` makes of it";
        warnings.push(text.to_owned());
    }
    match bos {
        None => facts.push("the tokenizer has no BOS token".to_owned()),
        Some(1) => facts.push("1 BOS token".to_owned()),
        Some(0) => facts.push("no BOS token".to_owned()),
        Some(several) => warnings.push(format!("{several} BOS tokens: the text or the template has one of its own")),
    }
    if sequence.escaped > 0 {
        facts.push(format!("{} spans look like special tokens and are ordinary text", sequence.escaped));
    }
    if sequence.cut > 0 {
        warnings.push(format!("{} tokens were cut on the left: the whole is longer than the limit", sequence.cut));
    }
    (facts, warnings)
}

/// A remark on sequences whose prompt the template writes in another way when an answer follows; none where there are
/// none.
pub fn displaced_remark(sequences: u64) -> Option<String> {
    let text = "whose prompt the chat template writes in another way when an answer follows; look at some with \
                `halftone render`";
    (sequences > 0).then(|| format!("{sequences} sequences {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hardly_meant_is_a_warning() {
        let sequence = Sequence {
            ids: vec![1, 1, 5, 6, 7],
            start: 3,
            prompt_tokens: 3,
            displaced: false,
            escaped: 2,
            cut: 4,
            unscored: Vec::new(),
        };
        let piece = |ids: &[u32], scored| Piece { text: String::new(), ids: ids.to_vec(), scored };
        let pieces = [piece(&[1, 1, 5], false), piece(&[6], true)];
        let (facts, warnings) = remarks(&sequence, &pieces, Some(2));
        assert_eq!(facts[0], "5 tokens: 3 before, 1 scored, 1 after them not scored");
        assert!(facts[1].starts_with("2 spans look like special tokens"), "{facts:?}");
        assert!(
            warnings[0].starts_with("2 BOS tokens") && warnings[1].starts_with("4 tokens were cut"),
            "{warnings:?}"
        );
        let plain = Sequence { escaped: 0, cut: 0, ..sequence };
        assert_eq!(remarks(&plain, &pieces, Some(1)).0[1], "1 BOS token");
        assert!(remarks(&plain, &pieces, Some(1)).1.is_empty());
        assert_eq!(remarks(&plain, &pieces, None).0[1], "the tokenizer has no BOS token");
    }
}
