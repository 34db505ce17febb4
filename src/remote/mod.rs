//! Shared stores: addresses, and the buckets and folders behind them.
//!
//! It knows the network and no stage; [`crate::store`] knows what lies there and no network. Read [`Address`], then
//! [`open`].

mod address;
mod bucket;
mod folder;
mod http;

use kit::{Interrupt, Result};

pub use address::{Address, Scheme};

use crate::store::Objects;
use bucket::Bucket;
use folder::Folder;

/// The variables of the environment that buckets are reached with, as far as tasks on other machines need them.
pub const VARIABLES: [&str; 21] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_TENANT_ID",
];

/// Those of them whose values are secrets.
const SECRETS: [&str; 6] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET",
];

/// What lies at an address. Nothing is asked yet; what is asked later ends when `interrupt` is raised.
///
/// # Errors
/// When the environment lacks what it takes to reach it.
pub fn open(address: &Address, interrupt: Interrupt) -> Result<Box<dyn Objects>> {
    for name in SECRETS {
        if let Ok(value) = std::env::var(name) {
            kit::keep_secret(&value, &format!("[{name}]"));
        }
    }
    Ok(match address.scheme {
        Scheme::File => Box::new(Folder::new(address, interrupt)),
        _ => Box::new(Bucket::new(address, interrupt)?),
    })
}
