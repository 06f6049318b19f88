//! Parts in an object store. Each is an upload in pieces, which becomes an object when it is
//! completed, all at once: that is when the checkpoint with its rows is committed. Until then
//! nobody sees it.
//!
//! An upload that nobody completes is kept by the store for ever. So each is noted in an
//! object of its own, `.part.jsonl.parts/000007`, before it gets its first piece; by these
//! notes, the next run finds the uploads that no checkpoint has, and aborts them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Location;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};

use super::super::beginning::IfExists;
use super::super::numbered::Numbered;
use super::Place;
use crate::blame::Fault;
use crate::checkpoint::crash::{self, Place as CrashPlace};
use crate::checkpoint::snapshot::{PartSnapshot, PartsSnapshot};
use crate::connector::network;
use crate::offload::blocking;
use crate::plan::state::RemotePlan;
use crate::sink::{SinkContext, SinkError};
use crate::store::{connect, explained};

/// A piece is sent when it has so many bytes. Stores want at least 5 MiB of all but the last.
const PIECE_BYTES: usize = 8 << 20;

/// So many requests are under way at a time.
const AT_A_TIME: usize = 16;

/// Where parts are, and how they are called.
#[derive(Clone, Debug)]
pub(in super::super) struct ObjectNames {
    /// What all folders of rows are in: the key of no object, perhaps empty.
    base: Location,
    names: Numbered,
    /// Of the notes of uploads.
    notes: Location,
}

impl ObjectNames {
    pub fn of(base: Location, file: &str) -> Self {
        ObjectNames {
            notes: base.clone().join(format!(".{file}.parts")),
            names: Numbered::of(std::path::Path::new(file)),
            base,
        }
    }

    fn part(&self, part: &PartSnapshot) -> Result<Location, String> {
        let name = self.names.path(part.number);
        let folder = Some(part.folder.as_str()).filter(|folder| !folder.is_empty());
        let base = Some(self.base.as_ref()).filter(|base| !base.is_empty());
        let names = [base, folder, name.to_str()];
        let path = Vec::from_iter(names.into_iter().flatten()).join("/");
        Location::parse(path).map_err(|error| error.to_string())
    }

    fn note(&self, number: u64) -> Location {
        self.notes.clone().join(format!("{number:06}"))
    }

    /// The number of an object, if it is called like a part.
    fn number(&self, location: &Location) -> Option<u64> {
        let file = self.names.file(location.filename()?.into())?;
        (!file.is_part).then_some(file.number)
    }
}

/// A store, as this process reaches it.
#[derive(Clone)]
pub(in super::super) struct Bucket {
    pub store: Arc<AmazonS3>,
    /// For messages.
    pub url: String,
}

/// Why something cannot be done.
#[derive(Debug)]
struct Failure {
    what: String,
    why: String,
    fault: Fault,
}

impl Failure {
    fn lasting(what: impl Into<String>, why: impl Into<String>) -> Self {
        Failure {
            what: what.into(),
            why: why.into(),
            fault: Fault::OUTSIDE_LASTING,
        }
    }
}

pub(in super::super) struct BucketParts {
    node: String,
    bucket: Bucket,
    names: ObjectNames,
    /// Uploads of an earlier run that go before the first row.
    orphans: Vec<Location>,
    /// Objects that go as well: of an earlier run, or from behind the restored checkpoint.
    obsolete: Vec<Location>,
    /// Uploads that are being sent to their ends.
    sending: HashMap<u64, Receiver<Result<Sent, Failure>>>,
}

/// A part that is being written.
pub(in super::super) struct BucketPart {
    number: u64,
    location: Location,
    /// What is still to be sent.
    piece: Vec<u8>,
    bytes: u64,
    sent: Sent,
}

/// What was sent of a part.
#[derive(Clone, Debug, Default)]
struct Sent {
    /// Absent before the first piece.
    upload: Option<String>,
    pieces: Vec<String>,
}

/// What a note says.
#[derive(serde::Serialize, serde::Deserialize)]
struct Note {
    key: String,
    upload: String,
}

impl Bucket {
    /// The store of a sink, and the key that its URL has. Nothing is asked yet.
    pub fn of(node: &str, plan: &RemotePlan) -> Result<(Self, Location), SinkError> {
        let wrong = |why: String| SinkError::new(node, &plan.url, why, Fault::CONFIG);
        let connected = connect(plan).map_err(wrong)?;
        let store = connected
            .s3
            .ok_or_else(|| wrong("it is no S3 store".to_owned()))?;
        let bucket = Bucket {
            store,
            url: plan.url.clone(),
        };
        Ok((bucket, connected.path))
    }

    fn failure(&self, what: &str, location: &Location, cause: &Error) -> Failure {
        let (why, fault) = explained(cause);
        Failure {
            what: format!("{location} in {}", self.url),
            why: format!("cannot {what} it: {why}"),
            fault,
        }
    }

    /// Sends a piece of a part, which may be the first.
    async fn send(
        self,
        note: Location,
        location: Location,
        piece: Vec<u8>,
        mut sent: Sent,
    ) -> Result<Sent, Failure> {
        let failed = |cause| self.failure("upload", &location, &cause);
        let upload = match sent.upload.take() {
            Some(upload) => upload,
            None => {
                let upload = self.store.create_multipart(&location).await;
                let upload = upload.map_err(failed)?;
                let text = serde_json::json!(Note {
                    key: location.to_string(),
                    upload: upload.clone(),
                });
                let noted = self.store.put(&note, text.to_string().into()).await;
                noted.map_err(|cause| self.failure("write", &note, &cause))?;
                upload
            }
        };
        let index = sent.pieces.len();
        let payload = PutPayload::from(piece);
        let put = self
            .store
            .put_part(&location, &upload, index, payload)
            .await;
        sent.pieces.push(put.map_err(failed)?.content_id);
        sent.upload = Some(upload);
        Ok(sent)
    }

    /// Makes an object of an upload, which may be one already.
    async fn name(
        &self,
        note: Location,
        location: Location,
        part: &PartSnapshot,
        is_restored: bool,
    ) -> Result<(), Failure> {
        let what = || format!("{location} in {}", self.url);
        if !is_restored && self.size(&location).await?.is_some() {
            let why = "is there, and this run has not written it: move it away";
            return Err(Failure::lasting(what(), why));
        }
        let Some(upload) = &part.upload else {
            return Err(Failure::lasting(
                what(),
                "the checkpoint has no upload of it",
            ));
        };
        let pieces = part.pieces.iter().map(|piece| PartId {
            content_id: piece.clone(),
        });
        crash::point(CrashPlace::CommitBefore);
        let completed = self
            .store
            .complete_multipart(&location, upload, pieces.collect())
            .await;
        crash::point(CrashPlace::CommitAfter);
        match completed {
            Ok(_) => return self.delete(&note).await,
            // It is an object already, or lost.
            Err(Error::NotFound { .. }) => {}
            Err(cause) => return Err(self.failure("complete", &location, &cause)),
        }
        match self.size(&location).await? {
            Some(bytes) if bytes != part.bytes => {
                let why = format!(
                    "it has {bytes} bytes instead of {}, and is not what this pipeline has \
                     written: move it away",
                    part.bytes
                );
                return Err(Failure::lasting(what(), why));
            }
            Some(_) => {}
            // A run before has made it, and noted that; readers have taken it away.
            None if is_restored && self.size(&note).await?.is_none() => {}
            None => {
                let why = "its upload is gone, perhaps aborted by a rule of the bucket, and the \
                           rows in it: start from an older checkpoint (`sluicebox run --from`), or \
                           go on without them (`--drop`)";
                return Err(Failure::lasting(what(), why));
            }
        }
        self.delete(&note).await
    }

    /// How large an object is, if it is there.
    async fn size(&self, location: &Location) -> Result<Option<u64>, Failure> {
        match self.store.head(location).await {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(cause) => Err(self.failure("find", location, &cause)),
        }
    }

    async fn delete(&self, location: &Location) -> Result<(), Failure> {
        match self.store.delete(location).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(self.failure("delete", location, &cause)),
        }
    }

    /// Aborts the upload of a note.
    async fn abort(&self, note: &Location) -> Result<(), Failure> {
        let read = async { self.store.get(note).await?.bytes().await };
        let text = match read.await {
            Ok(text) => text,
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(cause) => return Err(self.failure("read", note, &cause)),
        };
        // One that makes no sense is somebody else's.
        let Ok(Note { key, upload }) = serde_json::from_slice::<Note>(&text) else {
            let what = format!("{note} in {}", self.url);
            let why = "is no note of an upload: move it away";
            return Err(Failure::lasting(what, why));
        };
        let location = Location::parse(&key).map_err(|error| {
            Failure::lasting(format!("{note} in {}", self.url), error.to_string())
        })?;
        match self.store.abort_multipart(&location, &upload).await {
            Ok(()) | Err(Error::NotFound { .. }) => self.delete(note).await,
            Err(cause) => Err(self.failure("abort the upload of", &location, &cause)),
        }
    }

    /// The keys of all objects below this one.
    async fn list(&self, below: &Location) -> Result<Vec<Location>, Failure> {
        let listed = self.store.list(Some(below));
        let listed: Result<Vec<Location>, Error> =
            listed.map_ok(|it| it.location).try_collect().await;
        listed.map_err(|cause| self.failure("list", below, &cause))
    }
}

impl BucketParts {
    /// Finds what the run begins with, and changes nothing yet. Returns with which parts it
    /// goes on.
    pub fn open(
        node: &str,
        bucket: &Bucket,
        names: ObjectNames,
        if_exists: IfExists,
        context: &SinkContext,
    ) -> Result<(Self, PartsSnapshot), SinkError> {
        let restored = context.restored.as_ref().and_then(|it| it.parts.clone());
        let needs_objects = restored.is_none() || context.goes_back_to.is_some();
        let (store, known) = (bucket.clone(), names.clone());
        let found = wait(async move {
            let notes = store.list(&known.notes).await?;
            let objects = match needs_objects {
                true => store.list(&known.base).await?,
                false => Vec::new(),
            };
            Ok((notes, objects))
        });
        let (notes, objects) = found.map_err(|failure| failure.of_sink(node))?;
        let mut place = BucketParts {
            node: node.to_owned(),
            bucket: bucket.clone(),
            orphans: notes,
            obsolete: Vec::new(),
            sending: HashMap::new(),
            names,
        };
        let parts = objects.into_iter().filter_map(|location| {
            let number = place.names.number(&location)?;
            Some((number, location))
        });
        let parts: BTreeSet<(u64, Location)> = parts.collect();
        let restored = match restored {
            Some(restored) => {
                let waiting = restored.complete.iter();
                let waiting = waiting.map(|part| place.names.note(part.number));
                let waiting: BTreeSet<Location> = waiting.collect();
                place.orphans.retain(|note| !waiting.contains(note));
                let later = parts
                    .into_iter()
                    .filter(|(number, _)| *number >= restored.next);
                place.obsolete = later.map(|(_, location)| location).collect();
                restored
            }
            None => PartsSnapshot {
                next: place.begin_anew(if_exists, parts)?,
                ..PartsSnapshot::default()
            },
        };
        Ok((place, restored))
    }

    /// Returns the number of the first part of a run without a checkpoint.
    fn begin_anew(
        &mut self,
        if_exists: IfExists,
        parts: BTreeSet<(u64, Location)>,
    ) -> Result<u64, SinkError> {
        let Some((last, first)) = parts.last().map(|it| it.0).zip(parts.first()) else {
            return Ok(1);
        };
        match if_exists {
            IfExists::Append => Ok(last + 1),
            IfExists::Replace => {
                let (node, url, count) = (&self.node, &self.bucket.url, parts.len());
                tracing::warn!(
                    "sink `{node}`: `if_exists = \"replace\"` deletes {count} parts in {url}, such \
                     as {}",
                    first.1
                );
                self.obsolete = parts.into_iter().map(|(_, location)| location).collect();
                Ok(1)
            }
            IfExists::Fail => {
                let what = format!("{} in {}", first.1, self.bucket.url);
                let why = "is there, and this run does not go on from it: move it away, or write \
                           `if_exists = \"replace\"` or `if_exists = \"append\"`";
                Err(Failure::lasting(what, why).of_sink(&self.node))
            }
        }
    }

    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, SinkError> {
        wait(work).map_err(|failure| failure.of_sink(&self.node))
    }

    fn location(&self, part: &PartSnapshot) -> Result<Location, SinkError> {
        let what = || format!("{} in {}", part.folder, self.bucket.url);
        let location = self.names.part(part);
        location.map_err(|why| Failure::lasting(what(), why).of_sink(&self.node))
    }
}

impl Place for BucketParts {
    type Part = BucketPart;

    fn begin(&mut self) -> Result<(), SinkError> {
        let orphans = std::mem::take(&mut self.orphans);
        let obsolete = std::mem::take(&mut self.obsolete);
        let bucket = self.bucket.clone();
        self.wait(async move {
            let aborts = orphans.into_iter().map(|note| {
                let bucket = bucket.clone();
                async move { bucket.abort(&note).await }
            });
            let aborted = stream::iter(aborts).buffer_unordered(AT_A_TIME);
            aborted.try_collect::<()>().await?;
            let deletes = obsolete.into_iter().map(|location| {
                let bucket = bucket.clone();
                async move { bucket.delete(&location).await }
            });
            let deleted = stream::iter(deletes).buffer_unordered(AT_A_TIME);
            deleted.try_collect::<()>().await
        })
    }

    fn open(&mut self, part: &PartSnapshot) -> Result<BucketPart, SinkError> {
        Ok(BucketPart {
            number: part.number,
            location: self.location(part)?,
            piece: Vec::new(),
            bytes: 0,
            sent: Sent::default(),
        })
    }

    fn write(&mut self, part: &mut BucketPart, bytes: &[u8]) -> Result<(), SinkError> {
        part.piece.extend_from_slice(bytes);
        part.bytes += bytes.len() as u64;
        if part.piece.len() < PIECE_BYTES {
            return Ok(());
        }
        let piece = std::mem::take(&mut part.piece);
        let sent = std::mem::take(&mut part.sent);
        let note = self.names.note(part.number);
        let bucket = self.bucket.clone();
        part.sent = self.wait(bucket.send(note, part.location.clone(), piece, sent))?;
        Ok(())
    }

    fn bytes(&self, part: &BucketPart) -> u64 {
        part.bytes
    }

    fn memory_bytes(&self, part: &BucketPart) -> usize {
        part.piece.len()
    }

    /// Parts do not go on behind a checkpoint: what was sent cannot be cut.
    fn keep(&mut self, _: &mut BucketPart, _: &mut PartSnapshot) -> Result<(), SinkError> {
        let why = "a part in an object store cannot go on behind a checkpoint";
        Err(SinkError::new(
            &self.node,
            &self.bucket.url,
            why,
            Fault::BUG,
        ))
    }

    /// Sends the last piece. [`Place::settle`] waits until that is done.
    fn complete(&mut self, part: BucketPart, kept: &mut PartSnapshot) -> Result<(), SinkError> {
        kept.bytes = part.bytes;
        if part.piece.is_empty() && part.sent.upload.is_some() {
            (kept.upload, kept.pieces) = (part.sent.upload, part.sent.pieces);
            return Ok(());
        }
        let note = self.names.note(part.number);
        let sending = self
            .bucket
            .clone()
            .send(note, part.location, part.piece, part.sent);
        let sending = spawn(sending).map_err(|failure| failure.of_sink(&self.node))?;
        self.sending.insert(part.number, sending);
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.sending.len() >= AT_A_TIME
    }

    fn settle(&mut self, parts: &mut [PartSnapshot]) -> Result<(), SinkError> {
        for part in parts {
            if let Some(sending) = self.sending.remove(&part.number) {
                let sent = received(&sending).map_err(|failure| failure.of_sink(&self.node))?;
                (part.upload, part.pieces) = (sent.upload, sent.pieces);
            }
        }
        Ok(())
    }

    fn name(&mut self, parts: &[PartSnapshot], is_restored: bool) -> Result<(), SinkError> {
        let mut named = Vec::new();
        for part in parts {
            let note = self.names.note(part.number);
            named.push((note, self.location(part)?, part.clone()));
        }
        if named.is_empty() {
            return Ok(());
        }
        let bucket = self.bucket.clone();
        self.wait(async move {
            let names = named.into_iter().map(|(note, location, part)| {
                let bucket = bucket.clone();
                async move { bucket.name(note, location, &part, is_restored).await }
            });
            let done = stream::iter(names).buffer_unordered(AT_A_TIME);
            done.try_collect::<()>().await
        })
    }
}

impl Failure {
    fn of_sink(self, node: &str) -> SinkError {
        SinkError::new(node, self.what, self.why, self.fault)
    }
}

/// Has work done by the threads for connections.
fn spawn<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<Receiver<Result<T, Failure>>, Failure> {
    let network = network::runtime().map_err(|why| Failure {
        what: "to an object store".to_owned(),
        why,
        fault: Fault::OUTSIDE,
    })?;
    let (sender, receiver) = sync_channel(1);
    network.spawn(async move {
        // Whoever asked may have gone.
        let _ = sender.send(work.await);
    });
    Ok(receiver)
}

fn received<T>(answer: &Receiver<Result<T, Failure>>) -> Result<T, Failure> {
    let received = blocking(|| answer.recv());
    received.unwrap_or_else(|_| {
        Err(Failure {
            what: "to an object store".to_owned(),
            why: "the request was given up".to_owned(),
            fault: Fault::BUG,
        })
    })
}

fn wait<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    received(&spawn(work)?)
}
