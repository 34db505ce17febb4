//! Comparisons and their labels.

use crate::table::message::Message;
use crate::table::row::rows;

/// Declares a row type with the columns of a comparison, its own, and the place the row came from.
macro_rules! compared {
    ($(#[$doc:meta])* $name:ident in $table:ident { $($column:tt)* }) => { rows! {
        $(#[$doc])*
        $name in $table {
            /// The digest of both sides' ids.
            comparison_id: String,
            /// `same` or `joint`.
            form: String,
            /// Prompt of side a.
            a_prompt_id: String,
            /// Response of side a.
            a_response_id: String,
            /// Its prompt's messages.
            a_prompt: Vec<Message>,
            /// Its messages.
            a_response: Vec<Message>,
            /// Prompt of side b.
            b_prompt_id: String,
            /// Response of side b.
            b_response_id: String,
            /// Its prompt's messages.
            b_prompt: Vec<Message>,
            /// Its messages.
            b_response: Vec<Message>,
            $($column)*
            /// The file the row came from.
            source_file: Option<String>,
            /// Its line there, from 1.
            source_line: Option<u64>,
        }
    } };
}

/// Declares a row type with the columns of a verdict and, behind `p_hat`, its own.
macro_rules! judged {
    ($(#[$doc:meta])* $name:ident { $($column:tt)* }) => { compared! {
        $(#[$doc])*
        $name in Verdicts {
            /// Log of the probability of the label that says a is better (its variants summed), a shown first.
            ab_logp_a: Option<f64>,
            /// The same for b.
            ab_logp_b: Option<f64>,
            /// Probability of both labels together; what is missing to 1 went to other tokens.
            ab_mass: Option<f64>,
            /// P(a better), labels normalised, a shown first.
            ab_p: Option<f64>,
            /// As `ab_logp_a`, b shown first.
            ba_logp_a: Option<f64>,
            /// As `ab_logp_b`, b shown first.
            ba_logp_b: Option<f64>,
            /// As `ab_mass`, b shown first.
            ba_mass: Option<f64>,
            /// P(a better), labels normalised, b shown first.
            ba_p: Option<f64>,
            /// `ab_p - ba_p`: above 0 the judge favours what it sees first.
            position_gap: Option<f64>,
            /// Names of the four log-probs that are upper bounds, because a remote judge did not return that label;
            /// separated by commas, such as `ab_logp_b`.
            bounded: Option<String>,
            /// P(a better): of both orders, corrected, or of several sources together.
            p_hat: f64,
            $($column)*
            /// The judge: a digest of its weights and settings, or a name from the data.
            judge: Option<String>,
            /// The id of the prompt template.
            template: Option<String>,
        }
    } };
}

/// Declares a verdict with further columns, each documented.
macro_rules! extended {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => { $(
        judged! { $(#[$doc])* $name { $($(#[$field_doc])* $field: $type,)* } }

        /// The same verdict; the further columns are empty, for the stage to fill.
        impl From<Verdict> for $name {
            fn from(row: Verdict) -> $name {
                let Verdict {
                    comparison_id, form, a_prompt_id, a_response_id, a_prompt, a_response, b_prompt_id, b_response_id,
                    b_prompt, b_response, ab_logp_a, ab_logp_b, ab_mass, ab_p, ba_logp_a, ba_logp_b, ba_mass, ba_p,
                    position_gap, bounded, p_hat, judge, template, source_file, source_line,
                } = row;
                $name {
                    comparison_id, form, a_prompt_id, a_response_id, a_prompt, a_response, b_prompt_id, b_response_id,
                    b_prompt, b_response, ab_logp_a, ab_logp_b, ab_mass, ab_p, ba_logp_a, ba_logp_b, ba_mass, ba_p,
                    position_gap, bounded, p_hat, judge, template, source_file, source_line,
                    $($field: <$type>::default(),)*
                }
            }
        }
    )* };
}

compared! {
    /// Two responses to be compared; under one prompt (`same`) or each under its own (`joint`).
    Comparison in Comparisons {}
}

judged! {
    /// A comparison with the judge's answer in both orders. The columns with `ab` are of the order a first, those
    /// with `ba` of the order b first.
    Verdict {}
}

extended! {
    /// A [`Verdict`] from two scores, with the log-odds that they make.
    ScoredVerdict {
        /// The log-odds of `p_hat`, nothing cut: the difference of the scores times its scale.
        log_odds: Option<f64>,
    }

    /// A [`Verdict`] whose label was corrected, with what it was before and what changed it.
    CalibratedVerdict {
        /// The log-odds of `p_hat`, nothing cut; none after an isotonic curve.
        log_odds: Option<f64>,
        /// P(a better) as the judge said it, or as two scores say it.
        uncalibrated_p_hat: f64,
        /// Its log-odds, which the fit corrected: a difference of scores or of the labels' log-probs, nothing cut, or those
        /// of the probability, cut at 1e-12 from 0 and 1.
        uncalibrated_log_odds: Option<f64>,
        /// The fit that corrected it, as the table `calibration` names it.
        calibrator: String,
    }

    /// A [`Verdict`] that several votes or sources came to, with what each side got.
    JuryVerdict {
        /// The log-odds of `p_hat`, nothing cut, where the method adds log-odds.
        log_odds: Option<f64>,
        /// Weight of the votes for side a.
        votes_a: f64,
        /// Weight of the votes for neither.
        votes_tie: f64,
        /// Weight of the votes for side b.
        votes_b: f64,
        /// Annotators and judges that spoke.
        sources: u32,
        /// `stack`: P(a better) before the terms for length and position were taken out.
        unadjusted_p_hat: Option<f64>,
        /// `stack`: the fit that gave it, as the table `annotators` names it.
        fit: Option<String>,
    }
}

rows! {
    /// A [`Verdict`] without its texts, for stages that decide over many: ids and labels.
    VerdictLabels in Verdicts {
        /// The comparison.
        comparison_id: String,
        /// `same` or `joint`.
        form: String,
        /// Prompt of side a.
        a_prompt_id: String,
        /// Response of side a.
        a_response_id: String,
        /// Prompt of side b.
        b_prompt_id: String,
        /// Response of side b.
        b_response_id: String,
        /// As in [`Verdict`].
        ab_logp_a: Option<f64>,
        /// As in [`Verdict`].
        ab_logp_b: Option<f64>,
        /// As in [`Verdict`].
        ab_p: Option<f64>,
        /// As in [`Verdict`].
        ba_logp_a: Option<f64>,
        /// As in [`Verdict`].
        ba_logp_b: Option<f64>,
        /// As in [`Verdict`].
        ba_p: Option<f64>,
        /// P(a better).
        p_hat: f64,
        /// Log-odds of P(a better), nothing cut, where the table has them.
        log_odds: Option<f64>,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }

    /// The responses of a [`Verdict`], beside its [`VerdictLabels`].
    VerdictResponses in Verdicts {
        /// The messages of side a.
        a_response: Vec<Message>,
        /// The messages of side b.
        b_response: Vec<Message>,
    }

    /// A [`Comparison`] without its prompts' texts.
    ComparedResponses in Comparisons {
        /// The comparison.
        comparison_id: String,
        /// Prompt of side a.
        a_prompt_id: String,
        /// Response of side a.
        a_response_id: String,
        /// Its messages.
        a_response: Vec<Message>,
        /// Prompt of side b.
        b_prompt_id: String,
        /// Response of side b.
        b_response_id: String,
        /// Its messages.
        b_response: Vec<Message>,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }
}

impl Verdict {
    /// The columns of `verdicts` that are of questions to a language model.
    pub const OF_QUESTIONS: [&str; 11] = [
        "ab_logp_a",
        "ab_logp_b",
        "ab_mass",
        "ab_p",
        "ba_logp_a",
        "ba_logp_b",
        "ba_mass",
        "ba_p",
        "position_gap",
        "bounded",
        "template",
    ];

    /// A label of a comparison that no judge's log-probs stand behind.
    pub fn of(row: Comparison, p_hat: f64, judge: Option<String>) -> Verdict {
        Verdict {
            comparison_id: row.comparison_id,
            form: row.form,
            a_prompt_id: row.a_prompt_id,
            a_response_id: row.a_response_id,
            a_prompt: row.a_prompt,
            a_response: row.a_response,
            b_prompt_id: row.b_prompt_id,
            b_response_id: row.b_response_id,
            b_prompt: row.b_prompt,
            b_response: row.b_response,
            ab_logp_a: None,
            ab_logp_b: None,
            ab_mass: None,
            ab_p: None,
            ba_logp_a: None,
            ba_logp_b: None,
            ba_mass: None,
            ba_p: None,
            position_gap: None,
            bounded: None,
            p_hat,
            judge,
            template: None,
            source_file: row.source_file,
            source_line: row.source_line,
        }
    }
}
