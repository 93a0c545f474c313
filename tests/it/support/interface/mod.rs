//! The interface as `docs/openapi.yaml` describes it, and the comparison of what tests see with it.
//!
//! The client of the tests hands over every answer and the blocks of every stream. What the document
//! lacks or forbids fails the test that saw it: so the document tells all that clients meet, and a
//! change of the interface is one of the document.

use std::sync::LazyLock;

pub(crate) mod blocks;
pub(crate) mod document;
pub(crate) mod exchange;

use self::blocks::Blocks;
use self::document::Document;
use self::exchange::Exchange;

/// The document, read once.
pub(crate) static DOCUMENT: LazyLock<Document> =
    LazyLock::new(|| Document::read(include_str!("../../../../docs/openapi.yaml")));

/// What blocks of a stream may be.
pub(crate) static BLOCKS: LazyLock<Blocks> = LazyLock::new(|| {
    let stream = DOCUMENT.at("/components/responses/Stream/content/text~1event-stream");
    Blocks::of(&stream.child("x-item-schema").expect("a schema of blocks"))
});

/// Who answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// A gateway, to clients.
    Clients,
    /// A gateway, to operators.
    Operators,
    /// A proxy, which adds headers to what a gateway answers, or answers itself.
    Proxy,
}

/// Fails unless the document describes the exchange.
pub(crate) fn check_exchange(exchange: &Exchange<'_>) {
    let faults = exchange.faults(&DOCUMENT);
    assert!(
        faults.is_empty(),
        "docs/openapi.yaml and this exchange differ: {}\n{exchange:#?}",
        faults.join("; ")
    );
}

/// Fails unless the document describes the block.
pub(crate) fn check_block(text: &str) {
    if let Err(fault) = BLOCKS.check(text) {
        panic!("docs/openapi.yaml and this block differ: {fault}\n{text}");
    }
}
