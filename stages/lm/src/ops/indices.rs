//! Numbers that name rows, ids or positions.

#[cfg(any(feature = "cuda", test))]
use crate::{Device, Result, ops::cuda};
#[cfg(any(feature = "cuda", test))]
use candle_core::Tensor;
use std::ops::Deref;

/// Numbers on the host, which devices get a copy of; or those that a tensor of a device holds too, and that may be
/// others when recorded work is run again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Indices<'a> {
    host: &'a [u32],
    #[cfg(any(feature = "cuda", test))]
    there: Option<&'a Tensor>,
}

impl<'a> Indices<'a> {
    /// Numbers that a tensor of a device holds.
    #[cfg(any(feature = "cuda", test))]
    pub fn resident(host: &'a [u32], there: &'a Tensor) -> Indices<'a> {
        Indices { host, there: Some(there) }
    }

    /// The numbers on a device.
    #[cfg(any(feature = "cuda", test))]
    pub fn on(&self, device: &Device) -> Result<Tensor> {
        self.there.map_or_else(|| cuda::upload(self.host, device), |there| Ok(there.clone()))
    }

    /// True where all of them are below a limit, now and when recorded work is run again.
    pub fn always_below(&self, limit: usize) -> bool {
        #[cfg(any(feature = "cuda", test))]
        if self.there.is_some() {
            return false;
        }
        self.host.iter().all(|&index| (index as usize) < limit)
    }
}

impl Deref for Indices<'_> {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        self.host
    }
}

impl<'a> From<&'a [u32]> for Indices<'a> {
    fn from(host: &'a [u32]) -> Indices<'a> {
        Indices {
            host,
            #[cfg(any(feature = "cuda", test))]
            there: None,
        }
    }
}

impl<'a> From<&'a Vec<u32>> for Indices<'a> {
    fn from(host: &'a Vec<u32>) -> Indices<'a> {
        host.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [u32; N]> for Indices<'a> {
    fn from(host: &'a [u32; N]) -> Indices<'a> {
        host.as_slice().into()
    }
}
