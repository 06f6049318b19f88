use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::client::HttpRequest;

use super::uploader::Uploader;
use super::waiting::{Asked, GRACE};
use super::*;
use crate::checkpoint::changes::Changes;

const MEMORY: usize = 8 << 20;
const NONE: [CheckpointId; 0] = [];

/// A data folder, and a folder that stands for an object store.
struct Place {
    data: tempfile::TempDir,
    remote: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = || tempfile::tempdir().expect("a temporary folder");
        Place {
            data: folder(),
            remote: folder(),
        }
    }

    fn storage(&self) -> FolderStorage {
        FolderStorage::open(self.data.path(), MEMORY).expect("a storage")
    }

    fn remote(&self) -> RemoteStore {
        RemoteStore::new(&plan(self.remote.path()), "shop").expect("an object store")
    }

    /// Paths below the pipeline's folder.
    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let folder = self.remote.path().join("shop").join(folder);
        let entries = fs::read_dir(folder).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        paths
    }
}

fn plan(folder: &Path) -> RemotePlan {
    RemotePlan {
        url: format!("file://{}", folder.display()),
        options: Vec::new(),
    }
}

fn write(storage: &FolderStorage, id: CheckpointId, name: Option<&str>, rows: &[(&str, &str)]) {
    let mut changes = Changes::default();
    for (key, value) in rows {
        changes.put(
            |bytes| bytes.extend(key.as_bytes()),
            |bytes| bytes.extend(value.as_bytes()),
        );
    }
    let manifest = Manifest {
        id,
        name: name.map(str::to_owned),
        created_ms: 1_000,
        pipeline: "shop".into(),
        ..Manifest::default()
    };
    storage
        .write(manifest, vec![changes])
        .expect("a checkpoint");
}

fn value(storage: &FolderStorage, key: &str) -> Option<String> {
    let values = storage.get_many(&[key.as_bytes()]).expect("values");
    let value = values.into_iter().next().flatten()?;
    String::from_utf8(value).ok()
}

fn ids(list: &[CheckpointInfo]) -> Vec<CheckpointId> {
    list.iter().map(|info| info.id).collect()
}

#[tokio::test]
async fn only_new_files_are_sent() {
    let place = Place::new();
    let (storage, remote) = (place.storage(), place.remote());
    write(&storage, 1, None, &[("a", "1")]);
    let first = remote.upload(storage.archive(), 1).await.expect("upload");
    assert_eq!(first.files_shared, 0);
    assert_eq!(place.objects("files").len(), first.files);

    write(&storage, 2, None, &[("b", "2")]);
    let second = remote.upload(storage.archive(), 2).await.expect("upload");
    assert!(second.files_shared >= 1, "the first table was sent again");
    assert_eq!(place.objects("files").len(), first.files + second.files);

    // Another process has to list the store first.
    let again = place.remote();
    let third = again.upload(storage.archive(), 2).await.expect("upload");
    assert_eq!((third.files, third.bytes), (0, 0));
    assert_eq!(ids(&again.list().await.expect("a list")), [1, 2]);
}

#[tokio::test]
async fn a_host_without_the_folder_restores_the_copy() {
    let place = Place::new();
    let storage = place.storage();
    write(&storage, 7, Some("sale"), &[("a", "1"), ("b", "1")]);
    let remote = place.remote();
    remote.upload(storage.archive(), 7).await.expect("upload");
    let written = storage.archive().manifest(7).expect("a manifest");
    drop(storage);

    let elsewhere = Place {
        data: tempfile::tempdir().expect("a temporary folder"),
        ..place
    };
    let storage = elsewhere.storage();
    assert_eq!(ids(&storage.list().expect("a list")), NONE);
    let manifest = remote
        .download(storage.archive(), 7)
        .await
        .expect("a download");
    assert_eq!(manifest, written);
    storage.restore(7).expect("checkpoint 7");
    assert_eq!(value(&storage, "b").as_deref(), Some("1"));
    assert!(matches!(
        remote.download(storage.archive(), 8).await,
        Err(StorageError::Missing { id: 8, .. })
    ));
}

#[tokio::test]
async fn a_damaged_checkpoint_is_replaced_by_its_copy() {
    let place = Place::new();
    let (storage, remote) = (place.storage(), place.remote());
    write(&storage, 1, None, &[("a", "1")]);
    remote.upload(storage.archive(), 1).await.expect("upload");
    write(&storage, 2, None, &[("a", "2")]);
    let folder = storage.archive().path(1);
    fs::remove_file(folder.join("CURRENT")).expect("a file to remove");
    let list = storage.list().expect("a list");
    assert!(list[0].damage.is_some());
    let list = remote.list_with(list).await.expect("a list");
    assert_eq!(ids(&list), [1, 2]);
    assert!(list.iter().all(|info| info.damage.is_none()));
    let storage = Arc::new(storage);
    let manifest = remote.restore(storage.clone(), 1).await;
    assert_eq!(manifest.expect("the copy").id, 1);
    assert_eq!(value(&storage, "a").as_deref(), Some("1"));
}

#[tokio::test]
async fn damaged_objects_are_found() {
    let place = Place::new();
    let (storage, remote) = (place.storage(), place.remote());
    write(&storage, 1, None, &[("a", "1")]);
    remote.upload(storage.archive(), 1).await.expect("upload");
    let objects = place.objects("files").into_iter();
    let size = |path: &PathBuf| fs::metadata(path).expect("an object").len();
    let object = objects.max_by_key(size).expect("an object");
    let bytes = fs::read(&object).expect("an object");

    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    fs::write(&object, flipped).expect("a changed object");
    let said = refused(&remote, storage.archive()).await;
    assert!(said.contains("its content has changed"), "{said}");

    fs::write(&object, &bytes[1..]).expect("a shorter object");
    let said = refused(&remote, storage.archive()).await;
    assert!(said.contains(" bytes instead of "), "{said}");

    fs::remove_file(&object).expect("an object to remove");
    let said = refused(&remote, storage.archive()).await;
    assert!(said.contains("is missing"), "{said}");
    let list = remote.list().await.expect("a list");
    let damage = list[0].damage.as_deref().unwrap_or_default();
    assert!(damage.ends_with("is missing"), "{damage}");
    storage.restore(1).expect("the local one is as it was");

    // An incomplete file there is sent again.
    let sent = place.remote().upload(storage.archive(), 1).await;
    assert_eq!(sent.expect("upload").files, 1);
    remote
        .download(storage.archive(), 1)
        .await
        .expect("a download");
}

async fn refused(remote: &RemoteStore, archive: &Archive) -> String {
    let refused = remote.download(archive, 1).await;
    let error = refused.expect_err("a damaged object");
    assert!(matches!(error, StorageError::Damaged { id: 1, .. }));
    error.to_string()
}

#[tokio::test]
async fn a_changed_file_is_not_spread() {
    let place = Place::new();
    let (storage, remote) = (place.storage(), place.remote());
    write(&storage, 1, None, &[("a", "1")]);
    let path = storage.archive().path(1).join("CURRENT");
    let mut bytes = fs::read(&path).expect("a file");
    bytes[0] ^= 1;
    fs::write(&path, bytes).expect("a changed file");
    let refused = remote.upload(storage.archive(), 1).await;
    assert!(matches!(refused, Err(StorageError::Damaged { id: 1, .. })));
    assert_eq!(ids(&remote.list().await.expect("a list")), NONE);
}

#[tokio::test]
async fn what_kept_checkpoints_name_stays() {
    let place = Place::new();
    let (storage, remote) = (place.storage(), place.remote());
    for id in 1..=6 {
        let name = (id == 2).then_some("sale");
        let value = id.to_string();
        write(&storage, id, name, &[("a", &value), (&value, "x")]);
        remote.upload(storage.archive(), id).await.expect("upload");
    }
    assert_eq!(remote.prune(2).await.expect("dropped"), [1, 3, 4]);
    let list = remote.list().await.expect("a list");
    assert_eq!(ids(&list), [2, 5, 6]);
    assert!(list.iter().all(|info| info.damage.is_none()));
    let mut named = HashSet::new();
    for id in [2, 5, 6] {
        remote
            .download(storage.archive(), id)
            .await
            .expect("a download");
        storage.restore(id).expect("the copy");
        assert_eq!(value(&storage, "a"), Some(id.to_string()));
        let manifest = remote.manifest(id).await.expect("a manifest");
        named.extend(manifest.files.iter().map(object_name));
    }
    assert_eq!(place.objects("files").len(), named.len());
    assert_eq!(remote.prune(2).await.expect("nothing to drop"), NONE);
}

#[tokio::test]
async fn a_copy_that_never_happened_is_dropped() {
    let place = Place::new();
    let (storage, remote) = (place.storage(), place.remote());
    for id in 1..=2 {
        write(&storage, id, None, &[("a", &id.to_string())]);
        remote.upload(storage.archive(), id).await.expect("upload");
    }
    remote.delete(2).await.expect("a copy to drop");
    remote
        .delete(2)
        .await
        .expect("it is not there, as was wanted");
    assert_eq!(ids(&remote.list().await.expect("a list")), [1]);
    // Its number is given again, with other rows.
    write(&storage, 2, None, &[("a", "other")]);
    remote.upload(storage.archive(), 2).await.expect("upload");
    let storage = Arc::new(storage);
    storage.delete(2).expect("a checkpoint to drop");
    remote.restore(storage.clone(), 2).await.expect("the copy");
    assert_eq!(value(&storage, "a").as_deref(), Some("other"));
}

#[tokio::test]
async fn nothing_is_removed_while_a_manifest_cannot_be_read() {
    let place = Place::new();
    let (storage, remote) = (place.storage(), place.remote());
    for id in 1..=3 {
        write(&storage, id, None, &[("a", &id.to_string())]);
        remote.upload(storage.archive(), id).await.expect("upload");
    }
    let files = place.objects("files");
    fs::write(&place.objects("checkpoints")[1], "half").expect("a changed object");
    assert!(remote.prune(1).await.is_err());
    assert_eq!(place.objects("files"), files);
    assert_eq!(place.objects("checkpoints").len(), 3);
}

#[tokio::test]
async fn uploads_run_in_the_background_and_are_retried() {
    let place = Place::new();
    let storage = place.storage();
    // Nothing can be written there.
    let root = place.remote.path().join("shop");
    fs::write(&root, "").expect("a file");
    let uploader = Uploader::start(Arc::new(place.remote()), storage.archive().clone(), 2);
    write(&storage, 1, Some("sale"), &[("a", "1")]);
    uploader.want(1, true);
    for id in 2..=5 {
        write(&storage, id, None, &[("a", &id.to_string())]);
        uploader.want(id, false);
    }
    let wait = Duration::from_secs(60);
    let started = Instant::now();
    let error = uploader.finish(wait).await.expect_err("it is in the way");
    assert!(!error.fault().can_pass, "{error}");
    assert!(started.elapsed() < wait / 2, "it does not pass by itself");
    fs::remove_file(&root).expect("a file to remove");
    uploader.finish(wait).await.expect("it is tried again");
    let list = place.remote().list().await.expect("a list");
    assert_eq!(ids(&list), [1, 5], "the newest, and the savepoint");
}

#[tokio::test]
async fn where_nothing_can_be_written_is_said_at_the_start() {
    let place = Place::new();
    let remote = place.remote();
    remote.check_writable().await.expect("a folder");
    assert_eq!(place.objects(""), Vec::<PathBuf>::new(), "nothing stays");
    let of_user = place.remote.path().join("shop/writable");
    fs::write(&of_user, "theirs").expect("a file");
    remote.check_writable().await.expect("a folder");
    assert_eq!(place.objects(""), std::slice::from_ref(&of_user));
    assert_eq!(fs::read_to_string(&of_user).expect("a file"), "theirs");
    let root = place.remote.path().join("shop");
    fs::remove_dir_all(&root).expect("a folder to remove");
    fs::write(&root, "").expect("a file");
    let error = remote.check_writable().await.expect_err("it is in the way");
    assert!(!error.fault().can_pass, "{error}");
}

#[tokio::test]
async fn only_the_owner_may_read_copies() {
    let place = Place::new();
    let storage = place.storage();
    let large = "x".repeat(2 * PART_BYTES);
    write(&storage, 1, Some("sale"), &[("a", &large)]);
    let below = place.remote.path().join("made/for/it");
    let remote = RemoteStore::new(&plan(&below), "shop").expect("an object store");
    remote.upload(storage.archive(), 1).await.expect("upload");
    let mut folders = vec![place.remote.path().join("made")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    assert_eq!(mode(&path), 0o600, "{}", path.display());
                    files += 1;
                }
            }
        }
    }
    assert!(files > 2, "{files}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777
}

/// A store that gives this answer to each request.
async fn answering(answer: String) -> RemoteStore {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 1 << 12];
                while client.read(&mut request).await.is_ok_and(|read| read > 0) {
                    if client.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    at(address)
}

fn at(address: std::net::SocketAddr) -> RemoteStore {
    let options = [
        ("endpoint", format!("http://{address}")),
        ("allow_http", "true".to_owned()),
        ("aws_access_key_id", "a".to_owned()),
        ("aws_secret_access_key", "b".to_owned()),
    ];
    let plan = RemotePlan {
        url: "s3://bucket/prefix".into(),
        options: options.map(|(name, value)| (name.to_owned(), value)).into(),
    };
    RemoteStore::new(&plan, "shop").expect("an object store")
}

/// A wrong region, a wrong host, what is no store.
#[tokio::test]
async fn an_answer_that_stays_the_same_ends_a_run_at_its_start() {
    let length = |body: &str| format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let error = |code: &str| format!("<Error><Code>{code}</Code><Message>so</Message></Error>");
    for (head, body, said) in [
        (
            "301 Moved Permanently",
            "",
            "another region or at another address",
        ),
        (
            "307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/",
            "",
            "another region or at another address",
        ),
        (
            "400 Bad Request",
            &*error("AuthorizationHeaderMalformed"),
            "(AuthorizationHeaderMalformed: so): check `region`",
        ),
        ("405 Method Not Allowed", "<html>", "this is no S3 store"),
        ("501 Not Implemented", "", "this is no S3 store"),
        ("200 OK", "<html>Hello</html>", "this is no S3 store"),
        (
            "403 Forbidden",
            &error("AccessDenied"),
            "(AccessDenied: so): these credentials may not do that",
        ),
        ("401 Unauthorized", "", "does not accept these credentials"),
        (
            "404 Not Found",
            &error("NoSuchBucket"),
            "(NoSuchBucket: so): there is no such bucket",
        ),
        ("404 Not Found", "<html>", "there is no such bucket"),
    ] {
        let remote = answering(format!("HTTP/1.1 {head}\r\n{}", length(body))).await;
        let error = remote.check_writable().await.expect_err(head);
        assert!(!error.fault().can_pass, "{error}");
        let shown = error.to_string();
        assert!(shown.contains(said), "{head}: {shown}");
        assert!(
            shown.contains("in the object store s3://bucket/prefix"),
            "{shown}"
        );
    }
    // Of what is read, it says so of one object alone.
    let remote = answering(format!("HTTP/1.1 404 Not Found\r\n{}", length("<html>"))).await;
    let missing = remote.manifest(7).await;
    assert!(matches!(missing, Err(StorageError::Missing { id: 7, .. })));

    let timeout = error("RequestTimeout");
    let answer = format!("HTTP/1.1 400 Bad Request\r\n{}", length(&timeout));
    let remote = answering(answer).await;
    remote.check_writable().await.expect("it can pass");
}

/// A store that takes connections and answers nothing.
async fn silent() -> Arc<RemoteStore> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((client, _)) = listener.accept().await {
            open.push(client);
        }
    });
    Arc::new(at(address))
}

#[tokio::test]
async fn a_store_that_is_silent_holds_nobody_up_for_long() {
    let remote = silent().await;
    let began = Instant::now();
    let asked = remote.clone();
    let listed = remote.soon(async move { asked.list().await }).await;
    assert!(matches!(listed, Asked::Waiting(_)), "it answers nothing");
    let first = began.elapsed();
    assert!(first < GRACE * 4, "{first:?}");
    // What is not answered is not waited for again.
    let asked = remote.clone();
    let listed = remote.soon(async move { asked.list().await }).await;
    assert!(matches!(listed, Asked::Waiting(_)), "it answers nothing");
    assert!(began.elapsed() < first + GRACE / 2, "{:?}", began.elapsed());

    let limit = Some(Duration::from_millis(300));
    let waited = remote.answer("for its checkpoints", limit, remote.list());
    let error = waited.await.expect_err("it answers nothing");
    assert_eq!(error.fault(), Fault::OUTSIDE);
    assert_eq!(
        error.to_string(),
        "the object store s3://bucket/prefix has not answered within 300ms, and was asked for its \
         checkpoints: see that it runs, and that `url` and `endpoint` of `upload` and the network \
         lead to it"
    );
}

/// What the check of a URL and options says.
fn said(url: &str, options: &[(&str, &str)]) -> String {
    let options = options.iter();
    let plan = RemotePlan {
        url: url.into(),
        options: options.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    };
    check(&plan, "shop").err().unwrap_or_default()
}

#[test]
fn a_url_that_cannot_be_used_says_why() {
    assert_eq!(said("file:///mnt/checkpoints", &[]), "");
    assert_eq!(
        said("s3://bucket/prefix", &[("region", "eu-central-1")]),
        ""
    );
    assert!(said("checkpoints", &[]).contains("relative URL"));
    for good in ["file:/mnt", "FILE:///mnt", "file://localhost/mnt"] {
        assert_eq!(said(good, &[]), "", "{good}");
    }
    for relative in [
        "file:copies",
        "File:./copies",
        "file:../copies",
        " file:copies",
    ] {
        let said = said(relative, &[]);
        assert!(said.contains("no path from the root"), "{relative}: {said}");
    }
    assert_ne!(said("file://copies", &[]), "");
    assert!(said("memory:///", &[]).contains("only `file://` and `s3://`"));
    assert!(said("file:///mnt", &[("region", "x")]).contains("`region`"));
    assert!(said("s3://bucket", &[("regio", "x")]).contains("regio"));
}

#[test]
fn an_endpoint_that_cannot_be_used_says_why() {
    let said = |endpoint: &str, more: &[(&str, &str)]| {
        let options = [&[("endpoint", endpoint)], more].concat();
        said("s3://bucket/prefix", &options)
    };
    for good in [
        "https://store",
        "HTTPS://store.example:9000/",
        "https://[::1]:9000",
        "https://127.0.0.1/below",
    ] {
        assert_eq!(said(good, &[]), "", "{good}");
    }
    for wrong in [
        "",
        "nonsense",
        "localhost:9000",
        "//store",
        "ftp://store",
        "https:store",
        "https://",
        "https:///store",
        "https://:9000",
        "https://no such host",
        " https://store",
        "https://store\n",
        "https://st\u{f6}re",
        "https://store:99999",
        "https://store:0",
        "https://store:port",
        "https://[::1",
        "https://store\\bucket",
        "https://store/%zz?x=1",
        "https://store#x",
        "https://user:hidden@store",
    ] {
        let said = said(wrong, &[("allow_http", "true")]);
        let expected = "the option `endpoint` is no address of a store (";
        assert!(said.starts_with(expected), "{wrong:?}: {said}");
        assert!(!said.contains("hidden"), "{said}");
    }
    let http = "http://127.0.0.1:9000";
    for off in [&[][..], &[("allow_http", "no")]] {
        let said = said(http, off);
        assert!(said.contains("`allow_http = \"true\"`"), "{said}");
    }
    for on in ["true", "1", "Yes"] {
        assert_eq!(said(http, &[("allow_http", on)]), "");
    }
    assert!(said("https://store", &[("region", "no such")]).contains("`region`"));
    assert!(said("https://store", &[("region", "")]).contains("`region`"));
    let key = said("https://store", &[("aws_access_key_id", "a\nb")]);
    assert!(key.contains("`aws_access_key_id`"), "{key}");
}

proptest::proptest! {
    /// What passes the check can be connected to: the client does not panic.
    #[test]
    fn a_checked_endpoint_makes_requests(
        scheme in "(https?|HTTP)",
        rest in "(://)?[ -~]{0,3}[a-z0-9.:/@?#%\\[\\]\\\\^|{}<>\"`_~-]{0,12}(:[0-9]{0,6})?/?",
    ) {
        let options = [
            ("endpoint", format!("{scheme}{rest}")),
            ("allow_http", "true".into()),
            ("aws_access_key_id", "a".into()),
            ("aws_secret_access_key", "b".into()),
        ];
        let plan = RemotePlan {
            url: "s3://bucket/prefix".into(),
            options: options.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        if crate::store::s3::connect(&plan).is_ok() {
            let [(_, endpoint), ..] = &plan.options[..] else {
                unreachable!("it is the first option");
            };
            let endpoint = endpoint.trim_end_matches('/');
            let mut request = HttpRequest::new(Vec::new().into());
            for address in [endpoint.to_owned(), format!("{endpoint}/bucket/prefix")] {
                // As the client does it.
                *request.uri_mut() = address.parse().expect("the address of a request");
                let signed: Result<reqwest::Url, _> = request.uri().to_string().parse();
                let has_host = signed.expect("a URL to sign").has_host();
                assert!(has_host, "{address}");
            }
        }
    }
}
