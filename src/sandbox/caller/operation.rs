//! What Alipay+ calls a partner for, how long it waits for the answer, and bodies made from a payment.
//!
//! Only operations of the published API that go from Alipay+ to a partner: `notifyPayment` to
//! acquirers, the others to wallets. Bodies have the fields the documents require and no more; a
//! partner that needs others brings a body of its own. Knows JSON, not HTTP.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use countersign_protocol::Timestamp;
use serde_json::{Value, json};

/// What a partner is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
pub enum Operation {
    /// An acquirer is told that a payment succeeded.
    NotifyPayment,
    /// A wallet is asked to pay.
    Pay,
    /// A wallet is asked what became of a payment.
    InquiryPayment,
    /// A wallet is told to undo a payment.
    CancelPayment,
    /// A wallet is asked to pay back.
    Refund,
}

impl Operation {
    /// The operation that the last segment of a path names.
    pub fn of_path(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        Self::from_str(name, false).ok()
    }

    /// The last segment of its path.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotifyPayment => "notifyPayment",
            Self::Pay => "pay",
            Self::InquiryPayment => "inquiryPayment",
            Self::CancelPayment => "cancelPayment",
            Self::Refund => "refund",
        }
    }

    /// How long Alipay+ waits for the whole answer.
    pub fn patience(self) -> Duration {
        match self {
            Self::Pay | Self::Refund | Self::CancelPayment => Duration::from_secs(8),
            Self::NotifyPayment | Self::InquiryPayment => Duration::from_secs(5),
        }
    }

    /// Whether Alipay+ repeats it until the result is `S`.
    pub fn is_notification(self) -> bool {
        self == Self::NotifyPayment
    }

    /// A body as Alipay+ sends it.
    pub fn body(self, payment: &Payment, now: &Timestamp) -> String {
        let Payment {
            request_id,
            id,
            amount,
        } = payment;
        let mut body = match self {
            Self::NotifyPayment => json!({
                "paymentResult": {
                    "resultStatus": "S", "resultCode": "SUCCESS", "resultMessage": "success"
                },
                "paymentId": id,
                "customerId": "sandbox-customer",
                "paymentTime": now.as_str(),
                "paymentAmount": amount,
            }),
            Self::Pay => json!({
                "order": order(request_id, amount),
                "paymentAmount": amount,
                "paymentMethod": {
                    "paymentMethodType": "CONNECT_WALLET",
                    "paymentMethodId": "281012020262467128"
                },
                "paymentFactor": {"inStorePaymentScenario": "PaymentCode"},
            }),
            Self::InquiryPayment | Self::CancelPayment => json!({}),
            Self::Refund => json!({
                "refundRequestId": format!("refund-{request_id}"),
                "paymentId": id,
                "refundAmount": amount,
            }),
        };
        if let Value::Object(fields) = &mut body {
            let parties = [
                ("paymentRequestId", request_id.as_str()),
                ("acquirerId", "sandbox-acquirer"),
                ("pspId", "sandbox-wallet"),
            ];
            fields.extend(parties.map(|(name, value)| (name.to_owned(), value.into())));
        }
        body.to_string()
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The payment a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// `paymentRequestId`.
    pub request_id: String,
    /// `paymentId`.
    pub id: String,
    /// `{"currency": "JPY", "value": "100"}`, the value in the smallest unit.
    pub amount: Value,
}

impl Payment {
    /// 100 yen under these ids.
    pub fn sample(request_id: &str) -> Self {
        Self {
            request_id: request_id.to_owned(),
            id: format!("sandbox-{request_id}"),
            amount: json!({"currency": "JPY", "value": "100"}),
        }
    }

    /// The payment that the sandbox's own answer to `pay` tells of, if it succeeded.
    pub(in crate::sandbox) fn made(answer: &Value) -> Option<Self> {
        let text = |name| Some(answer.get(name)?.as_str()?.to_owned());
        let status = answer.pointer("/result/resultStatus")?;
        (status == "S").then_some(())?;
        Some(Self {
            request_id: text("paymentRequestId")?,
            id: text("paymentId")?,
            amount: answer.get("paymentAmount")?.clone(),
        })
    }
}

fn order(request_id: &str, amount: &Value) -> Value {
    json!({
        "referenceOrderId": format!("order-{request_id}"),
        "orderDescription": "Coffee",
        "orderAmount": amount,
        "merchant": {
            "referenceMerchantId": "sandbox-merchant",
            // Names of merchants are what first shows a partner that reads bytes as Latin-1.
            "merchantName": "喫茶店 Café",
            "merchantMCC": "5814",
        },
    })
}
