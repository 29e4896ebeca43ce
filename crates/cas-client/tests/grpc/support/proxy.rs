//! A wire that can be cut.

use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Forwards connections to a server until they are cut.
pub(crate) struct Proxy {
    pub(crate) url: String,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Proxy {
    /// In front of the server at this `http://` URL.
    pub(crate) async fn start(server: &str) -> Self {
        let target = server.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::<Mutex<Vec<_>>>::default();
        let shared = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.clone();
                let task = tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
                shared.lock().unwrap().push(task);
            }
        });
        Self { url, connections }
    }

    /// Cuts all connections; new ones may be made. Returns how many there were so far.
    pub(crate) fn cut(&self) -> usize {
        let connections = self.connections.lock().unwrap();
        connections.iter().for_each(JoinHandle::abort);
        connections.len()
    }
}
