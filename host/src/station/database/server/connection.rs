//! A connection to a PostgreSQL server, on which every answer has a deadline: a server that keeps its connection and says nothing (it is
//! stopped, its disk stalls, a proxy lost it) is found out like one that is not there.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Error, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::location::Address;
use super::super::{Fault, password};

/// How long a server may take to let the station in.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a server may take for one answer. It ends what takes long by itself before that (`SETTINGS`): only one that is silent
/// comes to this.
pub(super) const SILENCE: Duration = Duration::from_secs(25);

/// How long it may take to say that the station goes.
const LEAVE: Duration = Duration::from_secs(1);

/// Longest file of CA certificates, in bytes.
const MAXIMUM_AUTHORITIES: u64 = 1 << 20;

/// What holds for every connection: a commit is on the server's disk; and no station keeps others waiting for long, not even one that
/// vanishes in the midst of a change. Who waits for the lock waits longer than that.
const SETTINGS: &str = "
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
SET lock_timeout = '20s';
SET statement_timeout = '22s';
SET idle_in_transaction_session_timeout = '15s';
SET client_min_messages = 'error'";

/// What drives connections: in the thread that asks, and only while it does.
pub(super) struct Driver(Option<Runtime>);

impl Driver {
    pub(super) fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    fn block_on<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(runtime) => runtime.block_on(work),
            None => unreachable!("it is there until it is dropped"),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Where no name server answers, the system's own search for a name goes on for a minute: nobody waits for it.
            runtime.shutdown_background();
        }
    }
}

/// A connection.
pub(super) struct Connection {
    client: Client,
    /// What passes on what is asked and answered: one task, which ends with the connection, and the connection with it.
    line: JoinSet<Result<(), Error>>,
}

impl Connection {
    /// Connects, and settles what the station relies on.
    ///
    /// # Errors
    /// [`Fault::Away`]; all others if it is there and cannot be used.
    pub(super) fn open(
        driver: &Driver,
        address: &Address,
        password_file: Option<&Path>,
    ) -> Result<Self, Fault> {
        let mut config = Config::new();
        config
            .user(&address.user)
            .dbname(&address.database)
            .host(address.host())
            .port(address.port)
            .application_name("keyferry")
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(SILENCE / 2)
            .keepalives_interval(SILENCE / 6)
            .keepalives_retries(3);
        let password = password::password(address, password_file).map_err(Fault::Password)?;
        if let Some(password) = password {
            config.password(password::bytes(&password));
        }
        let entered = match &address.authorities {
            None => {
                config.ssl_mode(SslMode::Disable);
                let entering = Self::enter(&config, NoTls);
                driver.block_on(async { timeout(CONNECT, entering).await })
            }
            Some(authorities) => {
                config.ssl_mode(SslMode::Require);
                let entering = Self::enter(&config, MakeRustlsConnect::new(tls(authorities)?));
                driver.block_on(async { timeout(CONNECT, entering).await })
            }
        };
        let mut connection = match entered {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) if is_away(&error) => return Err(away(words(&error))),
            Ok(Err(error)) => return Err(Fault::Refused(error)),
            Err(_) => return Err(silent(CONNECT)),
        };
        connection.set_up(driver)?;
        Ok(connection)
    }

    async fn enter<T>(config: &Config, tls: T) -> Result<Self, Error>
    where
        T: MakeTlsConnect<Socket, Stream: Send + 'static>,
    {
        let (client, connection) = config.connect(tls).await?;
        let mut line = JoinSet::new();
        line.spawn(connection);
        Ok(Self { client, line })
    }

    /// Settles what the station relies on, and looks at what is not its own to choose.
    fn set_up(&mut self, driver: &Driver) -> Result<(), Fault> {
        self.ask(driver, CONNECT, async |client| {
            client.batch_execute(SETTINGS).await
        })?;
        for (setting, wanted) in [("fsync", "on"), ("server_encoding", "UTF8")] {
            let show = format!("SHOW {setting}");
            let row = self.ask(driver, CONNECT, async |client| {
                client.query_one(&show, &[]).await
            })?;
            let found: String = row.try_get(0).map_err(Fault::Server)?;
            if found != wanted {
                return Err(Fault::Setting { setting, found });
            }
        }
        Ok(())
    }

    /// Asks the server, and waits so long for its answer.
    ///
    /// # Errors
    /// [`Fault::Server`] is its answer. After [`Fault::Away`] the connection must not be used again: it is gone, or what comes on it
    /// may be the answer to something else.
    pub(super) fn ask<T>(
        &mut self,
        driver: &Driver,
        patience: Duration,
        work: impl AsyncFn(&Client) -> Result<T, Error>,
    ) -> Result<T, Fault> {
        let Self { client, line } = self;
        driver.block_on(async {
            let error = match timeout(patience, work(client)).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => error,
                Err(_) => return Err(silent(patience)),
            };
            if error.is_closed() {
                // The server may have said why.
                let ended = line.join_next().await;
                let said = ended.and_then(Result::ok).and_then(Result::err);
                return Err(away(words(&said.unwrap_or(error))));
            }
            if is_away(&error) {
                return Err(away(words(&error)));
            }
            Err(Fault::Server(error))
        })
    }

    /// Takes leave of the server, which would write a line about it otherwise.
    pub(super) fn close(self, driver: &Driver) {
        let Self { client, mut line } = self;
        drop(client);
        let left = driver.block_on(async { timeout(LEAVE, line.join_next()).await });
        drop(left);
    }
}

fn away(reason: String) -> Fault {
    Fault::Away {
        reason,
        unsure: false,
    }
}

fn silent(time: Duration) -> Fault {
    away(format!("it has not answered for {} s", time.as_secs()))
}

/// Whoever has a certificate of one of these CAs for the host's name is the server, and nobody else.
fn tls(authorities: &Path) -> Result<ClientConfig, Fault> {
    use std::io::Read;
    let unusable = |reason: String| Fault::Authorities {
        path: authorities.into(),
        reason,
    };
    let mut text = Vec::new();
    let file = std::fs::File::open(authorities).map_err(|error| unusable(error.to_string()))?;
    let read = file.take(MAXIMUM_AUTHORITIES).read_to_end(&mut text);
    read.map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("no certificate is in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Whether an error says that there is no server at the other end, or none that takes anything now.
fn is_away(error: &Error) -> bool {
    if let Some(code) = error.code() {
        // Class 08: connection exception; 57P01 to 57P03: the server shuts down, has crashed, or is starting; 53300: it has too many
        // connections; 25P03: it has given up this one.
        return code.code().starts_with("08")
            || [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::TOO_MANY_CONNECTIONS,
                SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            ]
            .contains(code);
    }
    let source = error.source().and_then(|it| it.downcast_ref::<io::Error>());
    // A certificate that is not the right one will not be it in a second, either.
    let is_tls = source
        .and_then(io::Error::get_ref)
        .is_some_and(|it| it.is::<rustls::Error>());
    error.is_closed() || (source.is_some() && !is_tls)
}

/// What an error says, with what is behind it.
pub(in super::super) fn words(error: &Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}
