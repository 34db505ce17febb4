//! The row types: one per table, the columns that stages meet in.
//!
//! Rows carry their text, so that a part can be read alone, and ids, so that a training pair leads back to the judge's
//! log-probs and to the source file and line. An `Option` is a column that may be absent or empty.

mod verdict;

use crate::table::row::rows;

pub use crate::table::message::Message;
pub use verdict::{
    CalibratedVerdict, ComparedResponses, Comparison, JuryVerdict, ScoredVerdict, Verdict, VerdictLabels,
    VerdictResponses,
};

/// The loss of one objective of a mixture.
#[derive(Debug, Clone, PartialEq)]
pub struct LossPart {
    /// The objective.
    pub name: String,
    /// Its loss, before its weight.
    pub loss: f64,
}

rows! {
    /// A prompt.
    Prompt in Prompts {
        /// Given, or the digest of the messages.
        prompt_id: String,
        /// The conversation up to the response.
        messages: Vec<Message>,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line (text) or row (Parquet) there, from 1.
        source_line: Option<u64>,
    }

    /// A response to a prompt.
    Response in Responses {
        /// Given, or the digest of the prompt's id and the response.
        response_id: String,
        /// The prompt it answers.
        prompt_id: String,
        /// The prompt's messages.
        prompt: Vec<Message>,
        /// The response's messages.
        messages: Vec<Message>,
        /// The response as plain text.
        text: String,
        /// Index of the sample among those of its prompt, from 0.
        k: u32,
        /// Number of equal samples that this row stands for.
        count: u32,
        /// Sum of the log-probs of its tokens under the model that wrote it, at the sampling temperature 1.
        logp: Option<f64>,
        /// Its length in tokens.
        tokens: Option<u32>,
        /// End of the response: `eos`, `stop` or `length`.
        finish: Option<String>,
        /// A score from the data.
        score: Option<f64>,
        /// The model that wrote it.
        model: Option<String>,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }

    /// The score of a [`Response`], without its texts.
    ResponseScore in Responses {
        /// The response.
        response_id: String,
        /// The prompt it answers.
        prompt_id: String,
        /// A score from the data.
        score: Option<f64>,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }

    /// One person's or judge's opinion of a comparison.
    Vote in Votes {
        /// The comparison.
        comparison_id: String,
        /// Who voted; absent where the data counts votes without their voters.
        annotator: Option<String>,
        /// 1: side a is better; 0: side b; 1/2: neither; between, how sure the voter is.
        vote: f64,
        /// Log-odds of the vote where it comes from two scores: their difference times its scale, nothing cut.
        log_odds: Option<f64>,
        /// Votes that this row stands for, at least 0.
        weight: f64,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }

    /// A judge's opinion of one response by itself: a distribution over the levels of a scale.
    Rating in Ratings {
        /// The prompt.
        prompt_id: String,
        /// The response.
        response_id: String,
        /// The criterion it was rated by; empty where there is one question alone.
        criterion: String,
        /// The mean level: of the numbers that the levels are, else of their places from 1, worst first. Absent where
        /// there is no rating.
        rating: Option<f64>,
        /// The probability of each level, worst first, levels normalised; empty where there is no rating.
        levels: Vec<f64>,
        /// Probability of all levels together; what is missing to 1 went to other tokens.
        mass: Option<f64>,
        /// Levels that an endpoint did not return: their probabilities are upper bounds.
        bounded: Option<u32>,
        /// The reason why there is no rating, such as `low_label_mass`.
        reason: Option<String>,
        /// The case: what was found and what was wanted.
        detail: Option<String>,
    }

    /// A text that a judge wrote about a comparison before its verdict.
    JudgeAnswer in Answers {
        /// The comparison.
        comparison_id: String,
        /// `ab`: a was shown first; `ba`: b was.
        order: String,
        /// Index of the answer among those of its order, from 0.
        sample: u32,
        /// P(a better) by this answer: 1, 0, or 1/2 for a tie; by the labels' log-probs behind a rationale. Absent where
        /// no verdict could be read.
        p: Option<f64>,
        /// The thoughts before the answer, such as those between `<think>` and `</think>`.
        thoughts: Option<String>,
        /// The answer, or the rationale.
        text: String,
        /// Its length in tokens, thoughts included.
        tokens: Option<u32>,
        /// Its end: `eos` or `stop`; `length` where it was cut off.
        finish: Option<String>,
    }

    /// A [`Vote`] with the lengths of what it is about: the same columns, and these.
    SizedVote in Votes {
        /// The comparison.
        comparison_id: String,
        /// Who voted; absent where the data counts votes without their voters.
        annotator: Option<String>,
        /// 1: side a is better; 0: side b; 1/2: neither; between, how sure the voter is.
        vote: f64,
        /// Log-odds of the vote where it comes from two scores: their difference times its scale, nothing cut.
        log_odds: Option<f64>,
        /// Votes that this row stands for, at least 0.
        weight: f64,
        /// Length of response a, as the data counts it, in characters or tokens.
        length_a: Option<f64>,
        /// Length of response b.
        length_b: Option<f64>,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }

    /// A training pair, oriented: chosen is at least as good as rejected.
    Pair in Pairs {
        /// The digest of both sides' ids, in order.
        pair_id: String,
        /// The comparison it came from.
        comparison_id: Option<String>,
        /// `same` or `joint`.
        form: String,
        /// Prompt of the chosen side.
        chosen_prompt_id: String,
        /// Response of the chosen side.
        chosen_response_id: String,
        /// Its prompt's messages.
        chosen_prompt: Vec<Message>,
        /// Its messages.
        chosen: Vec<Message>,
        /// Prompt of the rejected side.
        rejected_prompt_id: String,
        /// Response of the rejected side.
        rejected_response_id: String,
        /// Its prompt's messages.
        rejected_prompt: Vec<Message>,
        /// Its messages.
        rejected: Vec<Message>,
        /// P(chosen better), in [0.5, 1].
        p_hat: f64,
        /// The pair's weight in the loss, at least 0.
        weight: f64,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }

    /// A [`Pair`] without its prompts' texts.
    PairResponses in Pairs {
        /// The pair.
        pair_id: String,
        /// The comparison it came from.
        comparison_id: Option<String>,
        /// Prompt of the chosen side.
        chosen_prompt_id: String,
        /// Response of the chosen side.
        chosen_response_id: String,
        /// Its messages.
        chosen: Vec<Message>,
        /// Prompt of the rejected side.
        rejected_prompt_id: String,
        /// Response of the rejected side.
        rejected_response_id: String,
        /// Its messages.
        rejected: Vec<Message>,
        /// P(chosen better), in [0.5, 1].
        p_hat: f64,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }

    /// One response with a label of its own, for `sft`, KTO and unpaired objectives.
    Item in Items {
        /// The digest of the prompt's and the response's id and the label.
        item_id: String,
        /// The prompt.
        prompt_id: String,
        /// The response.
        response_id: String,
        /// The prompt's messages.
        prompt: Vec<Message>,
        /// The response's messages.
        response: Vec<Message>,
        /// Desirability, in [0, 1]; 1 for demonstrations.
        label: f64,
        /// The item's weight in the loss, at least 0.
        weight: f64,
        /// KTO: the id of the mismatched response under this prompt that estimates the KL term.
        kl_response_id: Option<String>,
        /// KTO: that response as plain text.
        kl_response: Option<String>,
        /// KTO: rows of one group share their mismatched responses; a batch is whole groups.
        kl_group: Option<u64>,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }

    /// The embedding of a prompt, of unit length.
    Embedding in Embeddings {
        /// The prompt.
        prompt_id: String,
        /// Unit length.
        embedding: Vec<f32>,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }

    /// Log-probs of one sequence under the frozen reference model.
    ReferenceRow in Reference {
        /// The prompt.
        prompt_id: String,
        /// The response.
        response_id: String,
        /// Index of the first completion token in the whole sequence.
        completion_start: u32,
        /// Sum over the completion's tokens.
        logp: f64,
        /// Sum over the prompt's tokens but the first, where JPO asks for it.
        prompt_logp: Option<f64>,
        /// Tokens before `completion_start`.
        prompt_tokens: u32,
        /// Tokens from `completion_start` on.
        completion_tokens: u32,
        /// The precision it was computed in, as `dtype` has it; the policy's has to be the same.
        dtype: Option<String>,
    }

    /// The measurements of one optimizer step of training, under TRL's names. Evaluations during training have
    /// `eval/loss` and the other `eval/` columns.
    Metric in Metrics {
        /// Optimizer steps done, this one included.
        step: u64,
        /// Passes over the data, fractional.
        epoch: f64,
        /// The loss of the whole batch.
        loss: Option<f64>,
        /// Of a mixture of objectives: the loss of each before its weight. Empty for one objective alone.
        loss_parts: Vec<LossPart>,
        /// The global norm of the gradient before clipping.
        grad_norm: Option<f64>,
        /// The learning rate of the step.
        learning_rate: Option<f64>,
        /// Tokens of all sequences so far, counting shared prompts once per sequence.
        num_tokens: Option<u64>,
        /// beta times the log-ratio of the chosen side, mean over edges; of a reward model its reward.
        rewards_chosen as "rewards/chosen": Option<f64>,
        /// The same for the rejected side.
        rewards_rejected as "rewards/rejected": Option<f64>,
        /// Share of edges whose margin is above 0.
        rewards_accuracies as "rewards/accuracies": Option<f64>,
        /// Difference of the two, mean over edges.
        rewards_margins as "rewards/margins": Option<f64>,
        /// Mean log-prob of the chosen side (with the prompt part for JPO).
        logps_chosen as "logps/chosen": Option<f64>,
        /// The same for the rejected side.
        logps_rejected as "logps/rejected": Option<f64>,
        /// Mean of `p_hat` over the batch.
        soft_p_mean as "soft/p_mean": Option<f64>,
        /// Effective sample size of the weights: (sum w)^2 / sum w^2.
        soft_weight_ess as "soft/weight_ess": Option<f64>,
        /// Loss on `eval_pairs`.
        eval_loss: Option<f64>,
        /// `rewards/accuracies` on `eval_pairs`.
        eval_rewards_accuracies as "eval_rewards/accuracies": Option<f64>,
        /// `rewards/margins` on `eval_pairs`.
        eval_rewards_margins as "eval_rewards/margins": Option<f64>,
        /// Mean token log-prob, for `sft`.
        mean_token_logp: Option<f64>,
        /// Of a reward model, as TRL's RewardTrainer names it: share of pairs whose chosen side has the higher reward.
        accuracy: Option<f64>,
        /// The same: mean difference of rewards, chosen less rejected.
        margin: Option<f64>,
        /// The same: least reward of the batch's sides.
        min_reward: Option<f64>,
        /// The same: their mean reward.
        mean_reward: Option<f64>,
        /// The same: their greatest reward.
        max_reward: Option<f64>,
    }

    /// The measurements of one optimizer step on the pairs of one form whose soft labels lie in one tenth of [0, 1].
    Split in Splits {
        /// The optimizer step.
        step: u64,
        /// `same` or `joint`.
        form: String,
        /// The labels: from here on,
        p_hat_low: f64,
        /// up to, but without, this; 1 belongs to the last tenth.
        p_hat_high: f64,
        /// Pairs of the batch that are in it.
        pairs: u64,
        /// Their loss, weighted as in the batch's; absent where a mixture has none for each pair.
        loss: Option<f64>,
        /// As in `metrics`, over these pairs.
        rewards_accuracies as "rewards/accuracies": Option<f64>,
        /// As in `metrics`, over these pairs.
        rewards_margins as "rewards/margins": Option<f64>,
    }

    /// Rows of each step.
    StepRow in Steps {
        /// The optimizer step, from 1.
        step: u64,
        /// The pair, or the item.
        row_id: String,
    }

    /// A strong cross-prompt weight of RPO.
    Contrast in Contrasts {
        /// The optimizer step.
        step: u64,
        /// The row: a chosen side.
        pair_id: String,
        /// The column: the pair whose rejected side it is set against.
        rejected_pair_id: String,
        /// The weight inside the sigmoid.
        weight: f64,
        /// Cosine similarity of the two prompts.
        similarity: f64,
    }

    /// One held-out pair under a policy and its reference, or under a reward model.
    Score in Scores {
        /// The pair.
        pair_id: String,
        /// `same` or `joint`.
        form: String,
        /// The pair's soft label.
        p_hat: f64,
        /// The reward model's number for the chosen side.
        chosen_reward: Option<f64>,
        /// The reward model's number for the rejected side.
        rejected_reward: Option<f64>,
        /// Policy, response part of the chosen side.
        policy_chosen_logp: Option<f64>,
        /// Policy, response part of the rejected side.
        policy_rejected_logp: Option<f64>,
        /// Policy, prompt part of the chosen side.
        policy_chosen_prompt_logp: Option<f64>,
        /// Policy, prompt part of the rejected side.
        policy_rejected_prompt_logp: Option<f64>,
        /// Reference, response part of the chosen side.
        reference_chosen_logp: Option<f64>,
        /// Reference, response part of the rejected side.
        reference_rejected_logp: Option<f64>,
        /// Reference, prompt part of the chosen side.
        reference_chosen_prompt_logp: Option<f64>,
        /// Reference, prompt part of the rejected side.
        reference_rejected_prompt_logp: Option<f64>,
        /// Difference of log-ratios (of log-probs where there is no reference; of rewards), not scaled by beta.
        margin: f64,
        /// The objective's loss for the pair, where an objective is given.
        loss: Option<f64>,
        /// True where the margin is above 0.
        correct: bool,
    }

    /// Summary of several runs of one setting, or the comparison of two settings run by run.
    ResultRow in Results {
        /// `mean` (of every setting), `best` (of the chosen ones) or `difference` (between chosen ones).
        part: String,
        /// The labels within which is chosen and compared, such as `data=stairs`.
        block: String,
        /// Name of the measure.
        metric: String,
        /// The value that is compared, such as the name of the objective.
        group: String,
        /// The other labels, such as `beta=0.3`.
        setting: String,
        /// For a difference, the group it is taken from.
        against: Option<String>,
        /// The mean over the runs.
        value: f64,
        /// Lower end of the 95 % interval.
        low: Option<f64>,
        /// Upper end of the 95 % interval.
        high: Option<f64>,
        /// For a difference, the two-sided p-value of none.
        p_value: Option<f64>,
        /// Runs it rests on.
        runs: u64,
        /// Their values, in the order of their labels.
        values: Vec<f64>,
        /// A note on the figure: the kind of interval, the way it was chosen.
        note: String,
    }

    /// One figure with its interval.
    SummaryRow in Summary {
        /// Name of the measure, such as `accuracy` or `utility/after`.
        metric: String,
        /// The estimate.
        value: f64,
        /// Lower end of the 95 % interval.
        low: Option<f64>,
        /// Upper end of the 95 % interval.
        high: Option<f64>,
        /// Rows it rests on.
        rows: u64,
        /// A note on the figure: the rows it covers, the kind of interval.
        note: String,
    }

    /// The true utility of a response in the sandbox.
    Utility in Utilities {
        /// The response.
        response_id: String,
        /// Its prompt.
        prompt_id: String,
        /// The utility.
        utility: f64,
        /// Number of equal samples that it stands for.
        count: u32,
        /// The model that wrote it.
        model: Option<String>,
    }

    /// A judge's soft label beside the sandbox's true one.
    TruthRow in Truth {
        /// The comparison.
        comparison_id: String,
        /// `same` or `joint`.
        form: String,
        /// P(a better) by the judge.
        p_hat: f64,
        /// P(a better) in truth.
        p_star: f64,
    }

    /// A fitted correction of soft labels. `z` is the log-odds of the label.
    CalibrationRow in Calibration {
        /// Its name in the column `calibrator` of verdicts: `all`, or the folds of prompts that it has not seen.
        calibrator: String,
        /// `temperature`, `platt` or `isotonic`.
        method: String,
        /// Temperature and Platt: p = sigmoid(scale z + offset).
        scale: Option<f64>,
        /// Platt's offset; 0 for temperature.
        offset: Option<f64>,
        /// Isotonic: the curve is linear between (0, 0.5) and these |z|, and mirrored below 0.
        knot_logits: Vec<f64>,
        /// Isotonic: p at each of them.
        knot_levels: Vec<f64>,
        /// Gold labels it rests on.
        rows: u64,
        /// Steps of Newton's method.
        newton_steps: u32,
        /// True where the optimum was found within bounds.
        converged: bool,
    }

    /// One bin of a reliability diagram, of the side that the label prefers.
    ReliabilityRow in Reliability {
        /// `before` or `after` calibration; after: by fits that have not seen the row.
        labels: String,
        /// The bin's number, from 0.
        bin: u32,
        /// Its lower end.
        low: f64,
        /// Its upper end.
        high: f64,
        /// Labels in it.
        rows: u64,
        /// Their mean probability.
        mean_p: Option<f64>,
        /// The mean gold probability of the preferred side: what `mean_p` should be.
        mean_gold: Option<f64>,
        /// The lower end of its 95 % interval (Wilson's).
        gold_low: Option<f64>,
        /// The upper end.
        gold_high: Option<f64>,
    }

    /// A figure of one annotator or judge among several.
    AnnotatorRow in Annotators {
        /// Who.
        annotator: String,
        /// `votes`, `agreement`, `matrix` (P(vote | truth)), `weight` (factor of the log-odds) or `without` (log loss
        /// where it is left out, less that with it).
        measure: String,
        /// `matrix`: the true class, as a vote.
        truth: Option<f64>,
        /// `matrix`: the vote.
        vote: Option<f64>,
        /// `weight`: the fit, `all` or the folds of prompts that it has not seen.
        fit: Option<String>,
        /// The figure.
        value: f64,
        /// Comparisons it rests on.
        rows: u64,
    }

    /// A model among several that were compared with one baseline. Shares are in [0, 1], intervals at 95 %.
    LeaderboardRow in Leaderboard {
        /// Its place, 1 for the highest win rate.
        rank: u32,
        /// The model.
        model: String,
        /// Mean probability that its response is better than the baseline's.
        win_rate: f64,
        /// The standard error of that; absent for one item.
        standard_error: Option<f64>,
        /// Lower end of its interval.
        low: Option<f64>,
        /// Upper end.
        high: Option<f64>,
        /// Share of items won; a draw, a probability of exactly 1/2, is half.
        discrete_win_rate: f64,
        /// Items won, above 1/2.
        wins: u64,
        /// Items at exactly 1/2.
        draws: u64,
        /// Items lost.
        losses: u64,
        /// Items.
        items: u64,
        /// Mean difference of its win rate from that of the first, over the items that both have; absent for the first.
        difference: Option<f64>,
        /// Lower end of its paired interval.
        difference_low: Option<f64>,
        /// Upper end.
        difference_high: Option<f64>,
        /// Items that it has in common with the first.
        common: Option<u64>,
        /// Mean length of its responses, in the unit of the data.
        average_length: Option<f64>,
        /// Win rate with the length term at 0, where one is fitted.
        length_controlled: Option<f64>,
        /// Lower end of its interval.
        length_controlled_low: Option<f64>,
        /// Upper end.
        length_controlled_high: Option<f64>,
    }

    /// A row that a stage did not take on, and why.
    Reject in Rejects {
        /// The input it was read from (a config key such as `from`), or `files`.
        input: String,
        /// The row's id, where it has one.
        row_id: String,
        /// A short reason that rows share, such as `too_long`.
        reason: String,
        /// This row's case: what was found and what was wanted.
        detail: String,
        /// The file the row came from.
        source_file: Option<String>,
        /// Its line there, from 1.
        source_line: Option<u64>,
    }
}
