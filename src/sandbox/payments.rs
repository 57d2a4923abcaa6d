//! What the sandbox remembers: payments and refunds, idempotent by request id.
//!
//! The same request id with the same amount gives the same answer again; with another amount it is
//! refused, as at the real gateway. Knows JSON, not HTTP.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// All payments and refunds.
#[derive(Debug, Default)]
pub struct Ledger {
    payments: Vec<Payment>,
    refunds: HashMap<String, (Value, Value)>,
    next: u64,
}

#[derive(Debug)]
struct Payment {
    request_id: String,
    id: String,
    amount: Value,
    cancelled: bool,
    refunded: u64,
}

/// A result that says `F`.
pub(super) fn refused(code: &str, message: &str) -> Value {
    json!({"result": {"resultStatus": "F", "resultCode": code, "resultMessage": message}})
}

fn success(mut fields: Map<String, Value>) -> Value {
    let result = json!({
        "resultStatus": "S", "resultCode": "SUCCESS", "resultMessage": "success"
    });
    fields.insert("result".to_owned(), result);
    Value::Object(fields)
}

/// The fields of a JSON object literal.
macro_rules! fields {
    ($($json:tt)*) => { if let Value::Object(map) = json!($($json)*) { map } else { Map::new() } };
}

impl Ledger {
    /// Carries out an operation, named by the last segment of its path.
    pub fn carry_out(&mut self, operation: &str, body: &[u8]) -> Value {
        let Ok(Value::Object(request)) = serde_json::from_slice(body) else {
            return refused("PARAM_ILLEGAL", "the body is no JSON object");
        };
        let done = match operation {
            "pay" => self.pay(&request),
            "inquiryPayment" => self.inquire(&request),
            "cancelPayment" => self.cancel(&request),
            "refund" => self.refund(&request),
            "applyToken" => self.apply_token(&request),
            "prepare" => self.prepare(&request),
            _ => Err(refused(
                "PROCESS_FAIL",
                "the sandbox does not know this interface",
            )),
        };
        done.unwrap_or_else(|refusal| refusal)
    }

    fn pay(&mut self, request: &Map<String, Value>) -> Result<Value, Value> {
        let request_id = text(request, "paymentRequestId")?;
        let amount = amount(request, "paymentAmount")?;
        if let Some(known) = self
            .payments
            .iter()
            .find(|one| one.request_id == request_id)
        {
            if known.amount != *amount {
                return Err(refused(
                    "REPEAT_REQ_INCONSISTENT",
                    "the same id with another amount",
                ));
            }
            return Ok(known.receipt());
        }
        let payment = Payment {
            request_id: request_id.to_owned(),
            id: self.number("pay"),
            amount: amount.clone(),
            cancelled: false,
            refunded: 0,
        };
        let receipt = payment.receipt();
        self.payments.push(payment);
        Ok(receipt)
    }

    fn inquire(&mut self, request: &Map<String, Value>) -> Result<Value, Value> {
        let payment = self.find(request)?;
        let status = if payment.cancelled {
            "CANCELLED"
        } else {
            "SUCCESS"
        };
        let result = json!({"resultStatus": "S", "resultCode": "SUCCESS", "resultMessage": status});
        let mut fields = payment.fields();
        fields.insert("paymentResult".to_owned(), result);
        fields.insert("paymentStatus".to_owned(), status.into());
        Ok(success(fields))
    }

    fn cancel(&mut self, request: &Map<String, Value>) -> Result<Value, Value> {
        let payment = self.find(request)?;
        if payment.refunded > 0 {
            return Err(refused(
                "ORDER_STATUS_INVALID",
                "the payment is refunded already",
            ));
        }
        payment.cancelled = true;
        Ok(success(
            fields!({"paymentId": payment.id, "paymentRequestId": payment.request_id}),
        ))
    }

    fn refund(&mut self, request: &Map<String, Value>) -> Result<Value, Value> {
        let request_id = text(request, "refundRequestId")?.to_owned();
        let amount = amount(request, "refundAmount")?.clone();
        if let Some((known, receipt)) = self.refunds.get(&request_id) {
            if *known != amount {
                return Err(refused(
                    "REPEAT_REQ_INCONSISTENT",
                    "the same id with another amount",
                ));
            }
            return Ok(receipt.clone());
        }
        let id = self.number("refund");
        let payment = self.find(request)?;
        let (paid, wanted) = (value(&payment.amount), value(&amount));
        if payment.cancelled || payment.amount.get("currency") != amount.get("currency") {
            return Err(refused(
                "ORDER_STATUS_INVALID",
                "this payment cannot be refunded so",
            ));
        }
        if payment.refunded.saturating_add(wanted) > paid {
            return Err(refused("REFUND_AMOUNT_EXCEED", "more than was paid"));
        }
        payment.refunded += wanted;
        let receipt = success(fields!({
            "refundId": id, "refundRequestId": request_id, "paymentId": payment.id,
            "refundAmount": amount
        }));
        self.refunds.insert(request_id, (amount, receipt.clone()));
        Ok(receipt)
    }

    fn apply_token(&mut self, request: &Map<String, Value>) -> Result<Value, Value> {
        let grant = text(request, "grantType")?;
        let credential = if grant == "REFRESH_TOKEN" {
            "refreshToken"
        } else {
            "authCode"
        };
        text(request, credential)?;
        Ok(success(fields!({
            "accessToken": self.number("access"), "refreshToken": self.number("refresh"),
            "accessTokenExpiryTime": "2099-01-01T00:00:00Z"
        })))
    }

    fn prepare(&mut self, request: &Map<String, Value>) -> Result<Value, Value> {
        text(request, "authRedirectUrl")?;
        let url = format!(
            "https://sandbox.invalid/authorize?state={}",
            self.number("auth")
        );
        Ok(success(fields!({"authUrl": url, "normalUrl": url})))
    }

    fn find(&mut self, request: &Map<String, Value>) -> Result<&mut Payment, Value> {
        let id = request.get("paymentId").and_then(Value::as_str);
        let request_id = request.get("paymentRequestId").and_then(Value::as_str);
        if id.is_none() && request_id.is_none() {
            return Err(refused(
                "PARAM_ILLEGAL",
                "paymentId or paymentRequestId is missing",
            ));
        }
        let same = |one: &&mut Payment| {
            id.is_none_or(|id| one.id == id) && request_id.is_none_or(|id| one.request_id == id)
        };
        self.payments
            .iter_mut()
            .find(same)
            .ok_or_else(|| refused("ORDER_NOT_EXIST", "no such payment"))
    }

    fn number(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("sandbox-{kind}-{:08}", self.next)
    }
}

impl Payment {
    fn fields(&self) -> Map<String, Value> {
        fields!({
            "paymentId": self.id, "paymentRequestId": self.request_id, "paymentAmount": self.amount
        })
    }

    fn receipt(&self) -> Value {
        success(self.fields())
    }
}

fn text<'a>(request: &'a Map<String, Value>, name: &str) -> Result<&'a str, Value> {
    let found = request.get(name).and_then(Value::as_str);
    found
        .filter(|text| (1..=64).contains(&text.len()) || name.ends_with("Url"))
        .ok_or_else(|| {
            refused(
                "PARAM_ILLEGAL",
                &format!("{name} is missing or no short text"),
            )
        })
}

/// `{"currency": "JPY", "value": "100"}`, the value in the smallest unit.
fn amount<'a>(request: &'a Map<String, Value>, name: &str) -> Result<&'a Value, Value> {
    let found = request.get(name).filter(|amount| {
        let currency = amount
            .get("currency")
            .and_then(Value::as_str)
            .unwrap_or_default();
        currency.len() == 3 && value(amount) > 0
    });
    let wrong = || {
        refused(
            "PARAM_ILLEGAL",
            &format!("{name} needs a currency and a value"),
        )
    };
    found.ok_or_else(wrong)
}

fn value(amount: &Value) -> u64 {
    let text = amount
        .get("value")
        .and_then(Value::as_str)
        .unwrap_or_default();
    text.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(ledger: &mut Ledger, operation: &str, request: &Value) -> Value {
        ledger.carry_out(operation, request.to_string().as_bytes())
    }

    fn pay(value: &str) -> Value {
        json!({"paymentRequestId": "R1", "paymentAmount": {"currency": "JPY", "value": value}})
    }

    #[test]
    fn the_same_payment_twice_is_paid_once_and_another_amount_is_refused() {
        let mut ledger = Ledger::default();
        let first = ask(&mut ledger, "pay", &pay("100"));
        assert_eq!(first["result"]["resultStatus"], "S");
        assert_eq!(ask(&mut ledger, "pay", &pay("100")), first);
        let other = ask(&mut ledger, "pay", &pay("101"));
        assert_eq!(other["result"]["resultCode"], "REPEAT_REQ_INCONSISTENT");
        assert_eq!(ledger.payments.len(), 1);
    }

    #[test]
    fn refunds_never_exceed_what_was_paid() {
        let mut ledger = Ledger::default();
        ask(&mut ledger, "pay", &pay("100"));
        let refund = |id: &str, value: &str| {
            json!({"refundRequestId": id, "paymentRequestId": "R1",
                   "refundAmount": {"currency": "JPY", "value": value}})
        };
        let first = ask(&mut ledger, "refund", &refund("F1", "60"));
        assert_eq!(first["result"]["resultStatus"], "S");
        assert_eq!(ask(&mut ledger, "refund", &refund("F1", "60")), first);
        let second = ask(&mut ledger, "refund", &refund("F2", "41"));
        assert_eq!(second["result"]["resultCode"], "REFUND_AMOUNT_EXCEED");
    }

    #[test]
    fn a_cancelled_payment_is_found_as_cancelled() {
        let mut ledger = Ledger::default();
        ask(&mut ledger, "pay", &pay("100"));
        let by_id = json!({"paymentRequestId": "R1"});
        assert_eq!(
            ask(&mut ledger, "cancelPayment", &by_id)["result"]["resultStatus"],
            "S"
        );
        assert_eq!(
            ask(&mut ledger, "inquiryPayment", &by_id)["paymentStatus"],
            "CANCELLED"
        );
        let unknown = ask(
            &mut ledger,
            "inquiryPayment",
            &json!({"paymentRequestId": "R2"}),
        );
        assert_eq!(unknown["result"]["resultCode"], "ORDER_NOT_EXIST");
    }
}
