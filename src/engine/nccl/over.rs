//! Ranks over NCCL.

use kit::{BetweenGpus, Collective, Error, GpuSwap, Result};

use super::library::{ID, Libraries};
use super::link::{Link, Wait, id};

/// Bytes that go another way at most: so few are there sooner than two copies to GPUs are made.
const FEW: usize = 16 << 10;

/// A way between ranks, with one between their GPUs beside it.
pub struct Over<'a> {
    base: &'a dyn Collective,
    link: Link,
    wait: Box<Wait<'a>>,
}

impl<'a> Over<'a> {
    /// Joins the others, who are found over `base`, on the GPU of a device such as `cuda:1`; where models compute on the
    /// processor on that of number `local`. `wait` looks until something is done, or others are found missing.
    ///
    /// # Errors
    /// The driver's and NCCL's, those of `wait` and of `base`; ranks of which some compute on the processor.
    pub fn join(
        libraries: Libraries,
        base: &'a dyn Collective,
        device: &str,
        local: usize,
        wait: impl Fn(&mut dyn FnMut() -> Result<bool>) -> Result<()> + Sync + 'a,
    ) -> Result<Over<'a>> {
        let gpu = device.strip_prefix("cuda:").and_then(|number| number.parse::<usize>().ok());
        let own = match base.rank() {
            0 => id(&libraries).map(|id| id.map(f64::from).to_vec()),
            _ => Ok(Vec::new()),
        };
        let told = base.gather(own.map(|id| [vec![f64::from(u8::from(gpu.is_some()))], id].concat()))?;
        if told.iter().any(|of| of[0] != told[0][0]) {
            let text = "some ranks compute on a GPU and others on the processor; NCCL wants all on GPUs";
            return Err(Error::Pipeline(text.to_owned()));
        }
        let id: Vec<u8> = told[0][1..].iter().map(|byte| *byte as u8).collect();
        let id: [u8; ID] = id.try_into().map_err(|_| Error::internal("an id of another length"))?;
        let place = (base.rank(), base.size());
        let link = Link::join(libraries, gpu.unwrap_or(local), place, id, &wait)?;
        Ok(Over { base, link, wait: Box::new(wait) })
    }
}

impl Collective for Over<'_> {
    fn rank(&self) -> usize {
        self.base.rank()
    }

    fn size(&self) -> usize {
        self.base.size()
    }

    /// Sends the count, with the bytes where these are few.
    fn exchange(&self, partner: usize, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let many = |count: usize| if count > FEW { count } else { 0 };
        let head = (bytes.len() as u64).to_le_bytes();
        let few: &[u8] = if many(bytes.len()) == 0 { &bytes } else { &[] };
        let mut theirs = self.base.exchange(partner, [&head[..], few].concat())?;
        let count: Option<usize> =
            theirs.first_chunk().map(|head| u64::from_le_bytes(*head)).and_then(|count| count.try_into().ok());
        let count = count.ok_or_else(|| Error::internal("a rank sent bytes without their count"))?;
        let (sent, taken) = (&bytes[..many(bytes.len())], many(count));
        if sent.is_empty() && taken == 0 {
            return Ok(theirs.split_off(head.len()));
        }
        let large = self.link.swap_bytes(partner, sent, taken, &*self.wait)?;
        Ok(if taken == 0 { theirs.split_off(head.len()) } else { large })
    }

    fn gpus(&self) -> Option<&dyn BetweenGpus> {
        Some(self)
    }
}

impl BetweenGpus for Over<'_> {
    fn swap(&self, partner: usize, swap: &GpuSwap) -> Result<()> {
        self.link.swap(partner, swap, &*self.wait)
    }
}
