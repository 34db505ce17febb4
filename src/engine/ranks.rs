//! One stage by processes that are its ranks. Rank 0 does the stage's work as a run does; the others compute with it.

use std::sync::atomic::{AtomicBool, Ordering};

use kit::{Collective, Context, Job, Outcome, Ranked, Seed};

use crate::engine::executor::Executor;
use crate::engine::work::Work;
use crate::error::Result;

/// Processes that were started together, one for each rank.
pub trait Processes: Collective {
    /// Ends this process and all others with an exit code, without waiting for them.
    fn abort(&self, code: i32) -> !;

    /// Leaves once all others do.
    fn leave(self: Box<Self>);
}

/// A rank before the work: all of them meet once, so that none waits for work that never begins.
pub struct Meeting<'a> {
    pub ranks: &'a dyn Collective,
    met: AtomicBool,
}

impl<'a> Meeting<'a> {
    /// Before the meeting.
    pub fn of(ranks: &'a dyn Collective) -> Meeting<'a> {
        Meeting { ranks, met: AtomicBool::new(false) }
    }

    /// Meets the others with the entry that this rank would work on, or an error. False where rank 0 has nothing to do.
    ///
    /// # Errors
    /// The error of any rank; other entries than that of rank 0.
    fn meet(&self, entry: kit::Result<Option<&str>>) -> kit::Result<bool> {
        self.met.store(true, Ordering::Relaxed);
        let bytes = |entry: Option<&str>| entry.unwrap_or_default().bytes().map(f64::from).collect();
        let all = self.ranks.gather(entry.map(bytes))?;
        // Where rank 0 has the result, the others have it too, or see that it is there.
        if all[0].is_empty() {
            return Ok(false);
        }
        match all.iter().position(|entry| *entry != all[0]) {
            None => Ok(true),
            Some(rank) => Err(kit::Error::Pipeline(format!(
                "rank {rank} would work on something else than rank 0: give all ranks one pipeline, one work folder and \
                 the same data"
            ))),
        }
    }

    /// The end of this rank's command: the others learn that there was no work, or why not.
    ///
    /// # Errors
    /// That of the command.
    pub fn end(&self, result: Result<()>) -> Result<()> {
        if self.met.load(Ordering::Relaxed) {
            return result;
        }
        match result {
            Ok(()) => self.meet(Ok(None)).map(drop).map_err(Into::into),
            Err(error) => {
                // It is this rank's own that is told here.
                let _ = self.meet(Err(kit::Error::Waiting(error.to_string())));
                Err(error)
            }
        }
    }

    fn check(&self, work: &dyn Ranked) -> kit::Result<()> {
        let (size, most) = (self.ranks.size(), work.most_ranks());
        if size <= most {
            return Ok(());
        }
        let text = format!("{size} ranks were started and `batch.ranks` allows {most}");
        Err(kit::Error::Pipeline(text))
    }
}

/// The executor of rank 0.
impl Executor for Meeting<'_> {
    fn execute(&self, stage: &str, job: Job<'_>, context: &Context<'_>) -> kit::Result<Outcome> {
        let Job::Ranked(work) = job else { return Err(no_ranks(stage)) };
        let entry = context.folder.file_name().unwrap_or_default().to_string_lossy();
        self.meet(self.check(&*work).map(|()| Some(&*entry)))?;
        work.compute(context, self.ranks)
    }
}

fn no_ranks(stage: &str) -> kit::Error {
    kit::Error::Pipeline(format!("is no work of ranks; `halftone run --only {stage}` does it"))
}

impl Work<'_> {
    /// Computes with rank 0, which has the stage's lock and its folder.
    ///
    /// # Errors
    /// The error of the work on any rank.
    pub fn follow(&self, meeting: &Meeting<'_>) -> Result<()> {
        let folder = self.run.store.partial(&self.recipe.entry(), false);
        let context = Context {
            seed: Seed(self.recipe.seed.unwrap_or_default()),
            device: self.device(),
            folder: &folder,
            inputs: self.sources.clone(),
            events: &|_| (),
            interrupt: self.run.interrupt.clone(),
        };
        self.guarded(|| {
            let Job::Ranked(work) = self.node.stage.job(&context)? else { return Err(no_ranks(&self.node.name)) };
            let entry = folder.file_name().unwrap_or_default().to_string_lossy();
            if meeting.meet(meeting.check(&*work).map(|()| Some(&*entry)))? {
                work.compute(&context, meeting.ranks)?;
            }
            Ok(())
        })
    }
}
