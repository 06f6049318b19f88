//! A connection to a server. What it does runs on threads of its own, since sinks are
//! called on threads that must not wait within a runtime; whoever asked waits for the
//! answer, or does something else meanwhile.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use native_tls::{Certificate, TlsConnector};
use postgres_native_tls::MakeTlsConnector;
use tokio::task::AbortHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config, Error};

use super::{Failure, PostgresConnection, Tls};
use crate::blame::Fault;
use crate::connector::network;
use crate::offload::blocking;
use crate::stop::Stop;

/// How long a server may be silent until the system gives the connection up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// When the log says that an answer is waited for.
const SLOW: Duration = Duration::from_secs(30);

/// How long an answer is waited for once the run is asked to stop: the last checkpoint's
/// rows still need some. Of several, each.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How often a waiting thread looks whether the run is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What a session sets, where the server knows it. The server must not end a transaction
/// because it is long, must not lose what it says is committed, and must notice that a
/// host is gone.
const SETTINGS: &str = "
    SELECT set_config(name, value, false)
    FROM (VALUES
        ('TimeZone', 'UTC'),
        ('DateStyle', 'ISO, MDY'),
        ('IntervalStyle', 'postgres'),
        ('bytea_output', 'hex'),
        ('extra_float_digits', '1'),
        ('client_min_messages', 'warning'),
        ('idle_in_transaction_session_timeout', '0'),
        ('idle_session_timeout', '0'),
        ('transaction_timeout', '0'),
        ('statement_timeout', '0'),
        ('lock_timeout', '0'),
        ('client_connection_check_interval', '10s'),
        ('tcp_keepalives_idle', '30'),
        ('tcp_keepalives_interval', '10'),
        ('tcp_keepalives_count', '3'),
        ('synchronous_commit', 'on')
    ) AS wanted (name, value)
    JOIN pg_settings AS known USING (name)
    WHERE context IN ('user', 'superuser')
      AND (name <> 'synchronous_commit' OR known.setting IN ('off', 'local'))";

/// A connection. Dropping it ends what the server does for it, and its open transaction.
pub struct Session {
    /// Who waits, for the log: "sink `orders`".
    who: String,
    client: Arc<Client>,
    stop: Stop,
    _driver: Driver,
    /// Why the first statement failed: in a transaction, all others fail after it.
    first: Arc<Mutex<Option<Failure>>>,
    /// Held by those whose statements belong together: a savepoint of one sink must not have
    /// rows of another behind it.
    series: Arc<tokio::sync::Mutex<()>>,
    /// Of all series: those that wait for their turn wait for others' answers.
    answered: Answered,
}

/// What moves a connection's messages. Dropping it ends the connection.
pub struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects to a server. Must be called within a tokio runtime.
pub async fn connect(connection: &PostgresConnection) -> Result<(Client, Driver), Failure> {
    let tls = tls_of(connection)?;
    let (client, driver) = config_of(connection).connect(tls).await?;
    // It ends with the client, whose calls say why.
    let driver = Driver(tokio::spawn(async { drop(driver.await) }).abort_handle());
    client.batch_execute(SETTINGS).await?;
    Ok((client, driver))
}

/// What is yet to be answered.
pub struct Answer<T> {
    who: String,
    receiver: Receiver<Result<T, Failure>>,
    answered: Answered,
    stop: Stop,
}

/// When the server has answered last, while several things are done for one answer.
#[derive(Clone)]
pub struct Answered(Arc<Mutex<Instant>>);

impl Answered {
    fn new() -> Self {
        Answered(Arc::new(Mutex::new(Instant::now())))
    }

    pub fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn elapsed(&self) -> Duration {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed()
    }
}

impl Session {
    pub fn open(
        who: &str,
        connection: &PostgresConnection,
        stop: &Stop,
    ) -> Result<Session, Failure> {
        let connection = connection.clone();
        let connecting = async move { connect(&connection).await };
        let (client, driver) = start(who, stop, Answered::new(), connecting)?.wait()?;
        Ok(Session {
            who: who.to_owned(),
            client: Arc::new(client),
            stop: stop.clone(),
            _driver: driver,
            first: Arc::default(),
            series: Arc::default(),
            answered: Answered::new(),
        })
    }

    /// Has the server do something.
    pub fn start<T, W>(&self, work: impl FnOnce(Arc<Client>) -> W) -> Result<Answer<T>, Failure>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (work, first) = (work(self.client.clone()), self.first.clone());
        start(&self.who, &self.stop, Answered::new(), async move {
            work.await.map_err(|error| first_of(&first, error.into()))
        })
    }

    /// Has the server do several things, between which it does nothing else.
    pub fn start_series<T, W>(
        &self,
        work: impl FnOnce(Arc<Client>, Answered) -> W,
    ) -> Result<Answer<T>, Failure>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let answered = self.answered.clone();
        let work = work(self.client.clone(), answered.clone());
        let (first, series) = (self.first.clone(), self.series.clone());
        answered.note();
        start(&self.who, &self.stop, answered, async move {
            let _turn = series.lock().await;
            work.await.map_err(|failure| first_of(&first, failure))
        })
    }

    /// Has the server do something, and waits until it is done.
    pub fn run<T, W>(&self, work: impl FnOnce(Arc<Client>) -> W) -> Result<T, Failure>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.start(work)?.wait()
    }
}

/// The failure, or the one that it only echoes.
fn first_of(first: &Mutex<Option<Failure>>, failure: Failure) -> Failure {
    let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
    match &*first {
        Some(first) if failure.is_echo() => first.clone(),
        _ => first.get_or_insert(failure).clone(),
    }
}

impl<T> Answer<T> {
    /// The answer, if it has come.
    pub fn take(&self) -> Option<Result<T, Failure>> {
        match self.receiver.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(gone())),
        }
    }

    /// Waits for it, however long it takes: another transaction may be in the way. Once
    /// the run is asked to stop, not for ever.
    pub fn wait(self) -> Result<T, Failure> {
        blocking(|| {
            let mut stopped: Option<Instant> = None;
            let mut has_warned = false;
            loop {
                match self.receiver.recv_timeout(LOOK) {
                    Ok(answer) => return answer,
                    Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                    Err(RecvTimeoutError::Timeout) => {}
                }
                let silence = self.answered.elapsed();
                if self.stop.asked()
                    && stopped.get_or_insert_with(Instant::now).elapsed() > STOP_MAX
                    && silence > STOP_MAX
                {
                    let seconds = STOP_MAX.as_secs();
                    let cause = format!("the server has not answered for {seconds} s");
                    return Err(Failure::new(cause, Fault::OUTSIDE));
                }
                if silence > SLOW && !std::mem::replace(&mut has_warned, true) {
                    tracing::warn!(
                        "{}: PostgreSQL has not answered for {} s; another transaction may have \
                         locked the table (pg_stat_activity tells)",
                        self.who,
                        SLOW.as_secs()
                    );
                }
            }
        })
    }
}

fn gone() -> Failure {
    Failure::new("the connection has ended", Fault::OUTSIDE)
}

fn start<T: Send + 'static>(
    who: &str,
    stop: &Stop,
    answered: Answered,
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<Answer<T>, Failure> {
    let network = network::runtime().map_err(|error| Failure::new(error, Fault::OUTSIDE))?;
    let (sender, receiver): (SyncSender<_>, _) = sync_channel(1);
    network.spawn(async move {
        // Whoever asked may have gone.
        let _ = sender.send(work.await);
    });
    Ok(Answer {
        who: who.to_owned(),
        receiver,
        answered,
        stop: stop.clone(),
    })
}

fn config_of(connection: &PostgresConnection) -> Config {
    let mut config = Config::new();
    for server in &connection.servers {
        match server.host.starts_with('/') {
            true => config.host_path(&server.host),
            false => config.host(&server.host),
        };
        config.port(server.port);
    }
    config
        .dbname(&connection.database)
        .user(&connection.user)
        .application_name("sluicebox")
        .connect_timeout(connection.connect_timeout)
        .tcp_user_timeout(SILENCE_MAX)
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(3)
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .ssl_mode(match connection.tls {
            Tls::Disable => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require | Tls::VerifyCa | Tls::VerifyFull => SslMode::Require,
        });
    if let Some(password) = &connection.password {
        config.password(&password.0);
    }
    if let Some(options) = &connection.options {
        config.options(options);
    }
    config
}

fn tls_of(connection: &PostgresConnection) -> Result<MakeTlsConnector, Failure> {
    let wrong = |cause: String| Failure::new(cause, Fault::OUTSIDE_LASTING);
    let mut tls = TlsConnector::builder();
    match connection.tls {
        Tls::VerifyFull => {}
        Tls::VerifyCa => {
            tls.danger_accept_invalid_hostnames(true);
        }
        // As libpq has it: who names what is trusted wants it to be checked.
        Tls::Require if connection.trusted.is_some() => {
            tls.danger_accept_invalid_hostnames(true);
        }
        Tls::Disable | Tls::Prefer | Tls::Require => {
            tls.danger_accept_invalid_certs(true);
            tls.danger_accept_invalid_hostnames(true);
        }
    }
    if let Some(path) = &connection.trusted {
        let shown = path.display();
        let pem = std::fs::read(path)
            .map_err(|error| wrong(format!("`sslrootcert` cannot be read: {shown}: {error}")))?;
        let trusted = Certificate::stack_from_pem(&pem).map_err(|error| {
            wrong(format!(
                "`sslrootcert` has no certificate: {shown}: {error}"
            ))
        })?;
        tls.disable_built_in_roots(true);
        for certificate in trusted {
            tls.add_root_certificate(certificate);
        }
    }
    let tls = tls
        .build()
        .map_err(|error| wrong(format!("TLS cannot be used: {error}")))?;
    Ok(MakeTlsConnector::new(tls))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::connector::server::Server;

    /// Why nothing comes of a connection to a server that ends it after this answer to the
    /// wish to encrypt it.
    fn failure(answer: &'static [u8]) -> Failure {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("it connects");
            client.read_exact(&mut [0; 8]).expect("it asks");
            client.write_all(answer).expect("it listens");
            // What the client says next; to leave it would reset the connection.
            if !answer.is_empty() {
                let _ = client.read(&mut [0; 4096]);
            }
        });
        let connection = PostgresConnection {
            servers: vec![Server {
                host: "127.0.0.1".to_owned(),
                port,
            }],
            database: "shop".to_owned(),
            user: "shop".to_owned(),
            password: None,
            tls: Tls::Require,
            trusted: None,
            options: None,
            connect_timeout: Duration::from_secs(10),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let failure = runtime.block_on(connect(&connection)).err();
        server.join().expect("it has answered");
        failure.expect("nobody is there")
    }

    #[test]
    fn a_connection_that_ends_before_it_is_encrypted_can_be_made_again() {
        for answer in [&b""[..], b"S"] {
            let Failure { cause, fault, .. } = failure(answer);
            assert_eq!(fault, Fault::OUTSIDE, "{answer:?}: {cause}");
        }
        let Failure { cause, fault, .. } = failure(b"Snot TLS");
        assert_eq!(fault, Fault::OUTSIDE_LASTING, "{cause}");
    }
}
