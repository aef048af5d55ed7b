//! A forward proxy in the test: what stands between a company's machines and a cluster (`proxy-url` of a kubeconfig).

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// An HTTP proxy that tunnels (CONNECT). It belongs to the runtime in which it was made.
pub struct ForwardProxy {
    port: u16,
    targets: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl ForwardProxy {
    /// A proxy that lets everybody through.
    pub async fn open() -> Self {
        Self::start(None).await
    }

    /// A proxy that wants these credentials, `user:password` in base64; without them 407.
    pub async fn with_credentials(basic: &str) -> Self {
        Self::start(Some(format!("basic {basic}"))).await
    }

    async fn start(wanted: Option<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let targets = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&targets);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(tunnel(stream, wanted.clone(), Arc::clone(&theirs)));
            }
        });
        Self { port, targets, task: task.abort_handle() }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where tunnels were opened to, in their order.
    pub fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap().clone()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tunnel(stream: TcpStream, wanted: Option<String>, targets: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        // A proxy for tests: no limit on a head that a test itself sends.
        if stream.read_line(&mut line).await? == 0 || line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let first = head.first().cloned().unwrap_or_default();
    let mut words = first.split_whitespace();
    let (Some("CONNECT"), Some(target)) = (words.next(), words.next()) else {
        return stream.write_all(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n").await;
    };
    let given = head
        .iter()
        .filter_map(|l| l.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"));
    let is_allowed = match (&wanted, given) {
        (None, _) => true,
        (Some(wanted), Some((_, given))) => {
            let (scheme, rest) = given.split_once(' ').unwrap_or_default();
            format!("{} {rest}", scheme.to_ascii_lowercase()) == *wanted
        }
        (Some(_), None) => false,
    };
    if !is_allowed {
        let refusal =
            b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n";
        return stream.write_all(refusal).await;
    }
    targets.lock().unwrap().push(target.to_owned());
    let mut server = TcpStream::connect(target).await?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut server).await.map(drop)
}
