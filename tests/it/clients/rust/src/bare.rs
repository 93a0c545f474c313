//! What the library does by itself.

use eventsource_client::{Client, ClientBuilder, Error, SSE};
use futures::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;

pub(crate) async fn follow(url: &str, token: &str, hear: impl Fn(&str, &str)) -> Result<(), Error> {
    let transport = HyperTransport::builder().build_http().expect("a transport");
    let client = ClientBuilder::for_url(url)?
        .header("authorization", &format!("Bearer {token}"))?
        .build_with_transport(transport);
    let mut stream = client.stream();
    while let Some(block) = stream.next().await {
        if let Ok(SSE::Event(event)) = block {
            hear(&event.event_type, &event.data);
        }
    }
    Ok(())
}
