//! Object stores: how they are reached, and what their errors mean.

/// Tells what a store would answer again.
mod answers;
/// Connects to S3 and compatible stores.
pub mod s3;
/// Signs requests to S3.
mod signature;

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3, AwsCredentialProvider};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreScheme};

use self::answers::Refused;
use self::s3::S3;
use crate::blame::{Fault, causes};
use crate::plan::state::RemotePlan;

/// A store, and what is known of it without a request.
pub struct Connected {
    pub store: Arc<dyn ObjectStore>,
    /// The same store, if it is one of S3.
    pub s3: Option<Arc<AmazonS3>>,
    /// That of the URL.
    pub path: Location,
    /// Absent where requests are not signed.
    pub credentials: Option<AwsCredentialProvider>,
    /// Present where objects are files on this machine.
    pub local: Option<Arc<LocalFileSystem>>,
}

/// Checks the URL and the options, as far as possible without the store.
pub fn connect(plan: &RemotePlan) -> Result<Connected, String> {
    let url = parsed(&plan.url)?;
    let (scheme, path) = ObjectStoreScheme::parse(&url).map_err(|error| error.to_string())?;
    let path = Location::parse(path).map_err(|error| error.to_string())?;
    match scheme {
        ObjectStoreScheme::Local => {
            if let Some((option, _)) = plan.options.first() {
                return Err(format!("a folder takes no options: remove `{option}`"));
            }
            check_absolute(&plan.url)?;
            // As durable as the data folder.
            let local = Arc::new(LocalFileSystem::new().with_fsync(true));
            Ok(Connected {
                store: local.clone(),
                s3: None,
                path,
                credentials: None,
                local: Some(local),
            })
        }
        ObjectStoreScheme::AmazonS3 => {
            let S3 { store, credentials } = s3::connect(plan)?;
            let store = Arc::new(store);
            Ok(Connected {
                store: store.clone(),
                s3: Some(store),
                path,
                credentials,
                local: None,
            })
        }
        _ => Err("only `file://` and `s3://` are known".to_owned()),
    }
}

/// Refuses what a parser of URLs takes for a path from the root, and a person for one from
/// the pipeline's folder, as other paths are.
fn check_absolute(url: &str) -> Result<(), String> {
    let path = url.trim().get("file:".len()..).unwrap_or_default();
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(format!(
            "`{url}` has no path from the root: write it as `file:///…`, since a URL cannot begin \
             in the pipeline's folder"
        )),
    }
}

/// Parses a text, with the error as text.
fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// What an error of a store says, and who is to blame.
pub fn explained(cause: &object_store::Error) -> (String, Fault) {
    let refused = causes(cause).find_map(|cause| cause.downcast_ref::<Refused>());
    match refused {
        Some(refused) => (refused.to_string(), Fault::OUTSIDE_LASTING),
        None => (cause.to_string(), fault_of(cause)),
    }
}

/// Whether somebody has to put the store, or what is known of it, right.
fn fault_of(cause: &object_store::Error) -> Fault {
    use object_store::Error;
    match cause {
        Error::NotFound { .. }
        | Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::UnknownConfigurationKey { .. } => Fault::OUTSIDE_LASTING,
        cause => {
            let of_io = causes(cause).filter_map(|cause| cause.downcast_ref::<io::Error>());
            of_io.last().map_or(Fault::OUTSIDE, Fault::of_io)
        }
    }
}
