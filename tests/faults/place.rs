//! Where the database is: a failover moves it, and everybody who connects anew finds it there.

use std::sync::{Arc, Mutex};

use tokio_postgres::{Client, Error, NoTls};

/// The address of the primary, shared by all who write.
#[derive(Clone, Debug)]
pub(crate) struct Place(Arc<Mutex<String>>);

impl Place {
    pub(crate) fn new(url: String) -> Place {
        Place(Arc::new(Mutex::new(url)))
    }

    /// The address as a URL.
    pub(crate) fn url(&self) -> String {
        self.0.lock().expect("nobody panics here").clone()
    }

    /// It is somewhere else from now on.
    pub(crate) fn move_to(&self, url: String) {
        *self.0.lock().expect("nobody panics here") = url;
    }

    /// A new session.
    pub(crate) async fn try_connect(&self) -> Result<Client, Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}
