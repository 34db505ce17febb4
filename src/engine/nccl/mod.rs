//! NCCL: bytes from GPU to GPU, over NVLink, InfiniBand or whatever it finds. A layer over another way between ranks, which
//! brings them together, carries what is small and knows which of them are missing.
//!
//! Its libraries are opened when ranks ask for them, so that the program needs neither to be built nor to start. What is
//! added is added by us, in our order: of NCCL only `ncclSend` and `ncclRecv` are used. Read [`Over`] first.

mod library;
mod link;
mod over;
mod threads;

pub use library::Libraries;
pub use over::Over;
pub use threads::Between;
