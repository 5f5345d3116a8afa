//! A proxy before an S3 server that breaks requests as networks and servers do.

use std::future::pending;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What is known of a request before its body.
#[derive(Debug, Clone)]
pub struct Request {
    /// `PUT`
    pub method: String,
    /// `/bucket/key?query`
    pub target: String,
    length: usize,
    head: Vec<u8>,
}

impl Request {
    /// Whether it writes a part of an object.
    pub fn is_part(&self) -> bool {
        self.method == "PUT" && self.target.contains("partNumber=")
    }

    /// Whether it completes an object of several parts.
    pub fn is_completion(&self) -> bool {
        self.method == "POST" && self.target.contains("uploadId=")
    }

    /// Whether it asks for the checksum of an object.
    pub fn is_checksum(&self) -> bool {
        String::from_utf8_lossy(&self.head).to_ascii_lowercase().contains("\r\nx-amz-checksum-mode:")
    }

    /// Whether it reads an object.
    pub fn is_read(&self) -> bool {
        self.method == "GET" && !self.target.contains("?list-type") && !self.target.contains("&prefix=")
    }
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// The server is not asked: its status such as `503 Slow Down`, and its answer.
    Answer(&'static str, String),
    /// Neither an answer nor an end of the connection.
    Stall,
    /// The connection breaks in the middle of the body.
    Cut,
    /// It is acknowledged, and forgotten.
    Lose,
    /// A bit of the body changes on the way.
    Damage,
    /// A bit of the answer changes on the way.
    DamageAnswer,
    /// The connection breaks in the middle of the answer.
    CutAnswer,
}

impl Fault {
    /// An error of S3.
    pub fn error(status: &'static str, code: &str, message: &str) -> Self {
        let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
        Self::Answer(status, format!("{xml}<Error><Code>{code}</Code><Message>{message}</Message></Error>"))
    }
}

/// The proxy, which ends with this value.
pub struct Proxy {
    /// Its address as `http://127.0.0.1:port`.
    pub endpoint: String,
    listener: JoinHandle<()>,
}

impl Proxy {
    /// Before the server at `http://host:port`. `decide` is asked about each request.
    pub async fn start(server: &str, decide: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
        let (server, decide) = (server.trim_start_matches("http://").to_owned(), Arc::new(decide));
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, decide) = (server.clone(), Arc::clone(&decide));
                tokio::spawn(async move {
                    // A connection that breaks is what this is for.
                    let _ = serve(client, &server, &*decide).await;
                });
            }
        });
        Self { endpoint, listener }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// One request; the connection ends with it.
async fn serve(mut client: TcpStream, server: &str, decide: &(impl Fn(&Request) -> Fault + Sync)) -> io::Result<()> {
    let Some(request) = read_head(&mut client).await? else { return Ok(()) };
    match decide(&request) {
        Fault::Pass => forward(&mut client, server, &request, Change::None).await,
        Fault::Cut => forward(&mut client, server, &request, Change::Cut).await,
        Fault::Damage => forward(&mut client, server, &request, Change::Damage).await,
        Fault::DamageAnswer => forward(&mut client, server, &request, Change::DamageAnswer).await,
        Fault::CutAnswer => forward(&mut client, server, &request, Change::CutAnswer).await,
        Fault::Stall => pending().await,
        Fault::Answer(status, text) => {
            skip(&mut client, request.length).await?;
            answer(&mut client, status, "Content-Type: application/xml", &text).await
        }
        Fault::Lose => {
            skip(&mut client, request.length).await?;
            answer(&mut client, "200 OK", "ETag: \"0123456789abcdef0123456789abcdef\"", "").await
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Cut,
    Damage,
    DamageAnswer,
    CutAnswer,
}

async fn read_head(client: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next().unwrap_or_default().to_owned(), first.next().unwrap_or_default().to_owned());
    let length = lines.find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    Ok(Some(Request { method, target, length: length.unwrap_or(0), head }))
}

async fn skip(client: &mut TcpStream, length: usize) -> io::Result<()> {
    client.read_exact(&mut vec![0; length]).await.map(|_| ())
}

async fn answer(client: &mut TcpStream, status: &str, header: &str, text: &str) -> io::Result<()> {
    let length = text.len();
    let head = format!("HTTP/1.1 {status}\r\n{header}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await?;
    client.write_all(text.as_bytes()).await?;
    client.shutdown().await
}

async fn forward(client: &mut TcpStream, server: &str, request: &Request, change: Change) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    // The server ends the connection after its answer, so that its length need not be known here.
    let head = &request.head[..request.head.len() - 2];
    server.write_all(head).await?;
    server.write_all(b"Connection: close\r\n\r\n").await?;
    let mut body = vec![0; request.length];
    client.read_exact(&mut body).await?;
    let middle = body.len() / 2;
    match change {
        Change::Cut => {
            server.write_all(&body[..middle]).await?;
            return Ok(());
        }
        Change::Damage if !body.is_empty() => body[middle] ^= 1,
        _ => {}
    }
    server.write_all(&body).await?;
    if !matches!(change, Change::DamageAnswer | Change::CutAnswer) {
        copy(&mut server, client).await?;
        return client.shutdown().await;
    }
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    let start = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(0, |end| end + 4);
    let middle = usize::midpoint(start, answer.len());
    if change == Change::CutAnswer {
        answer.truncate(middle);
    } else if let Some(byte) = answer.get_mut(middle) {
        *byte ^= 1;
    }
    client.write_all(&answer).await?;
    client.shutdown().await
}
