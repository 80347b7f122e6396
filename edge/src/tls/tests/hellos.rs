//! First messages of clients, byte by byte: what no well-behaved library would send.

use tokio::io::{AsyncReadExt as _, duplex};

use super::{DEADLINE, Lab, certificate, rsa_certificate};
use crate::tls::*;

const TLS10: u16 = 0x0301;
const TLS12: u16 = 0x0303;
const TLS13: u16 = 0x0304;
/// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 and TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256.
const ECDSA_GCM: u16 = 0xc02b;
const RSA_GCM: u16 = 0xc02f;
/// The same with CBC and SHA-1.
const ECDSA_CBC: u16 = 0xc009;
const RSA_CBC: u16 = 0xc013;
const TLS13_AES: u16 = 0x1301;
/// rsa_pss_rsae_sha256, ecdsa_secp256r1_sha256, ed448.
const RSA: u16 = 0x0804;
const ECDSA: u16 = 0x0403;
const ED448: u16 = 0x0808;

const HANDSHAKE_FAILURE: u8 = 40;
const ACCESS_DENIED: u8 = 49;
const PROTOCOL_VERSION: u8 = 70;
const INTERNAL_ERROR: u8 = 80;
const UNRECOGNIZED_NAME: u8 = 112;

/// What a client begins with.
struct Hello<'a> {
    version: u16,
    suites: &'a [u16],
    /// None leaves the extension out.
    schemes: Option<&'a [u16]>,
    name: Option<&'a str>,
}

impl Hello<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut extend = |kind: u16, body: Vec<u8>| {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(sized16(&body));
        };
        if let Some(name) = self.name {
            let entry = [&[0][..], &sized16(name.as_bytes())].concat();
            extend(0, sized16(&entry));
        }
        // secp256r1 and x25519; uncompressed points.
        extend(10, sized16(&[0, 23, 0, 29]));
        extend(11, vec![1, 0]);
        if let Some(schemes) = self.schemes {
            extend(13, sized16(&numbers(schemes)));
        }
        if self.version == TLS13 {
            extend(43, vec![2, 3, 4]);
            // No share of a key: the node would ask for one.
            extend(51, vec![0, 0]);
        }
        let mut body = self.version.min(TLS12).to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(sized16(&numbers(self.suites)));
        body.extend([1, 0]);
        body.extend(sized16(&extensions));
        let mut message = vec![1, 0];
        message.extend(sized16(&body));
        [&[22, 3, 1][..], &sized16(&message)].concat()
    }

    /// The alert that the node answers with; `None` if it goes on.
    async fn alert(&self, lab: &Lab) -> Option<u8> {
        let (ours, mut theirs) = duplex(64 * 1024);
        theirs.write_all(&self.bytes()).await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let heard = theirs.read_to_end(&mut answer);
        let (refused, heard) = tokio::join!(lab.acceptor.accept(ours, DEADLINE), heard);
        heard.unwrap();
        assert!(refused.is_err(), "the client has said nothing more");
        match answer.as_slice() {
            [21, _, _, 0, 2, 2, alert] => Some(*alert),
            [22, ..] => None,
            other => panic!("{other:?}"),
        }
    }
}

fn sized16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// RFC 8446 section 4.1.1 and RFC 5246 section 7.2.2: handshake_failure where nothing is shared. RFC 6066 section 3:
/// unrecognized_name where the name is not ours.
#[tokio::test]
async fn a_client_that_shares_nothing_is_told_so_by_the_right_alert() {
    let ecdsa = Lab::new(&[(certificate(&["a.example"]), false)]);
    let rsa = Lab::new(&[(rsa_certificate(&["a.example"]), false)]);
    let check = async |lab: &Lab, version, suites: &[u16], schemes: &[u16], expected: Option<u8>| {
        let hello = Hello {
            version,
            suites,
            schemes: Some(schemes),
            name: Some("a.example"),
        };
        let alert = hello.alert(lab).await;
        assert_eq!(alert, expected, "{version:x} {suites:x?} {schemes:x?}");
    };
    let refused = Some(HANDSHAKE_FAILURE);
    for (lab, gcm, cbc, fits, other, other_gcm) in [
        (&ecdsa, ECDSA_GCM, ECDSA_CBC, ECDSA, RSA, RSA_GCM),
        (&rsa, RSA_GCM, RSA_CBC, RSA, ECDSA, ECDSA_GCM),
    ] {
        check(lab, TLS12, &[gcm], &[fits], None).await;
        check(lab, TLS13, &[TLS13_AES], &[fits], None).await;
        // Suites that are not spoken here, though the key would do for them.
        check(lab, TLS12, &[cbc], &[fits], refused).await;
        check(lab, TLS12, &[TLS13_AES], &[fits], refused).await;
        check(lab, TLS13, &[gcm], &[fits], refused).await;
        // Signatures that the key does not make.
        check(lab, TLS12, &[gcm], &[other], refused).await;
        check(lab, TLS12, &[gcm], &[ED448], refused).await;
        check(lab, TLS13, &[TLS13_AES], &[other], refused).await;
        check(lab, TLS13, &[TLS13_AES], &[ED448], refused).await;
        // The suite is for one kind of key, the signatures are for the other.
        check(lab, TLS12, &[other_gcm], &[fits], refused).await;
        check(lab, TLS12, &[other_gcm], &[fits, other], refused).await;
        check(lab, TLS10, &[cbc], &[fits], Some(PROTOCOL_VERSION)).await;
    }
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_unrecognized_whatever_else_is_wrong() {
    let lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    for (name, suites) in [
        (Some("b.example"), &[ECDSA_GCM]),
        (Some("b.example"), &[ECDSA_CBC]),
        (None, &[ECDSA_GCM]),
    ] {
        let hello = Hello {
            version: TLS12,
            suites,
            schemes: Some(&[ECDSA]),
            name,
        };
        assert_eq!(
            hello.alert(&lab).await,
            Some(UNRECOGNIZED_NAME),
            "{name:?} {suites:x?}"
        );
    }
    assert_eq!(lab.refused(Reason::UnknownName), 2);
    assert_eq!(lab.refused(Reason::NoServerName), 1);
}

/// Every suite there is, each alone: the node goes on or says why not, and never blames access or itself.
#[tokio::test]
async fn no_suite_leads_to_an_alert_that_misleads() {
    let lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    let suites = (0..=0xff)
        .chain(0xc000..=0xc0ff)
        .chain(0xcca8..=0xccae)
        .chain(0x1300..=0x1306);
    let mut spoken = Vec::new();
    for suite in suites {
        for (version, schemes) in [
            (TLS10, None),
            (TLS12, None),
            (TLS12, Some(&[ECDSA, RSA][..])),
            (TLS13, Some(&[ECDSA, RSA])),
        ] {
            let hello = Hello {
                version,
                suites: &[suite],
                schemes,
                name: Some("a.example"),
            };
            match hello.alert(&lab).await {
                None => spoken.push((version, suite)),
                Some(ACCESS_DENIED | INTERNAL_ERROR) => panic!("{version:x} {suite:x}"),
                Some(_) => {}
            }
        }
    }
    spoken.sort_unstable();
    let expected = [
        (TLS12, 0xc02b),
        (TLS12, 0xc02c),
        (TLS12, 0xcca9),
        (TLS13, 0x1301),
        (TLS13, 0x1302),
        (TLS13, 0x1303),
    ];
    assert_eq!(spoken, expected);
}
