//! Certificates as JSON.
//!
//! One object: `claim`, `formula`, `slice` (for k >= 2), `instance` (the `U*_t`: T x d, or T x d x k),
//! `centre` (same shape), `radius`, `norm` ("2" or "max"), `lambda_min_lower`, `objective_lower`,
//! `gradient_upper`. Numbers are strings, decimals or quotients (see [`super::number`]), so that any
//! language reads them exactly. Other keys are kept by nobody and hurt nobody.
//! Reading is bounded: at most [`LARGEST_TEXT`] bytes and [`LARGEST_UNKNOWNS`] coordinates.

use super::error::ReadError;
use super::number;
use num_rational::BigRational;
use num_traits::Signed;
use serde_json::{Map, Value};

/// Most bytes of a certificate.
pub const LARGEST_TEXT: usize = 4 << 20;
/// Most coordinates T d k: the proof costs their cube.
pub const LARGEST_UNKNOWNS: usize = 400;

/// The objective that certificates speak of.
pub const FORMULA: &str = "F(U) = 1/(2T) sum_t ||E_t - (1/T) sum_s E_s||_F^2, \
E_t = U*_t U*_t^T - U_t U_t^T, with U* = instance. Certified: in the ball ||U - centre|| <= radius \
there is exactly one critical point of F; on the whole ball the smallest eigenvalue of the Hessian is \
at least lambda_min_lower and F is at least objective_lower, above the global minimum F(U*) = 0; the \
gradient at the centre has norm at most gradient_upper.";

/// What is certified for k >= 2, where critical points come in orbits `U_t Q_t`.
pub const SLICE: &str = "Critical points come in orbits U_t Q_t, Q_t orthogonal. With C = centre, \
existence, uniqueness and the bound on F are on the part of the ball where every C_t^T (U_t - C_t) is \
symmetric; lambda_min_lower bounds <Z, Hessian(U) Z> / <Z, Z> for all U of the ball and all Z != 0 with \
every C_t^T Z_t symmetric. The slice meets the orbits transversally on the ball, so its critical point \
is one of F.";

/// The norm that a ball is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Euclidean, over all coordinates.
    Two,
    /// Largest modulus of a coordinate.
    Max,
}

/// A T x d x k array of numbers as text, columns last.
#[derive(Clone, Debug, PartialEq)]
pub struct TextArray {
    /// T, d, k.
    pub shape: [usize; 3],
    /// Whether the last axis is left out in the file (k = 1).
    pub flat: bool,
    /// The numbers, last axis fastest.
    pub values: Vec<String>,
}

/// A certificate as it stands in its file; see the module's header.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// What it belongs to, for people.
    pub claim: String,
    /// The statement in formulas.
    pub formula: String,
    /// The slice, for k >= 2.
    pub slice: Option<String>,
    /// The offsets' factors `U*_t`.
    pub instance: TextArray,
    /// The centre of the ball.
    pub centre: TextArray,
    /// The ball's radius.
    pub radius: String,
    /// The norm of the ball and of the gradient.
    pub norm: Norm,
    /// Lower bound of the Hessian's smallest eigenvalue on the ball.
    pub lambda_min_lower: String,
    /// Lower bound of the objective on the ball.
    pub objective_lower: String,
    /// Upper bound of the gradient's norm at the centre.
    pub gradient_upper: String,
}

/// A certificate's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// The offsets' factors, last axis fastest.
    pub instance: Vec<BigRational>,
    /// The centre.
    pub centre: Vec<BigRational>,
    /// The radius, above 0.
    pub radius: BigRational,
    /// Above 0.
    pub lambda_min_lower: BigRational,
    /// Above 0.
    pub objective_lower: BigRational,
    /// At least 0.
    pub gradient_upper: BigRational,
}

impl Certificate {
    /// The certificate as one JSON object.
    pub fn to_json(&self) -> String {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("claim", self.claim.clone().into());
        put("formula", self.formula.clone().into());
        if let Some(slice) = &self.slice {
            put("slice", slice.clone().into());
        }
        put("instance", self.instance.to_value());
        put("centre", self.centre.to_value());
        put("radius", self.radius.clone().into());
        put("norm", if self.norm == Norm::Two { "2" } else { "max" }.into());
        put("lambda_min_lower", self.lambda_min_lower.clone().into());
        put("objective_lower", self.objective_lower.clone().into());
        put("gradient_upper", self.gradient_upper.clone().into());
        Value::Object(object).to_string()
    }

    /// Reads a certificate; numbers are checked to be numbers, bounds to be positive.
    ///
    /// # Errors
    /// [`ReadError`], with the key at fault.
    pub fn from_json(text: &str) -> Result<Self, ReadError> {
        if text.len() > LARGEST_TEXT {
            let (what, found) = ("bytes of JSON", text.len());
            return Err(ReadError::TooLarge { what, found, allowed: LARGEST_TEXT });
        }
        let value: Value = serde_json::from_str(text).map_err(|error| ReadError::Json {
            line: error.line(),
            column: error.column(),
            category: match error.classify() {
                serde_json::error::Category::Syntax => "syntax",
                serde_json::error::Category::Eof => "the text ends too early",
                _ => "data",
            },
        })?;
        let Value::Object(object) = value else {
            return Err(ReadError::Type { key: "certificate", expected: "one JSON object" });
        };
        let text = |key: &'static str| match object.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(ReadError::Type { key, expected: "a string" }),
            None => Err(ReadError::Missing { key }),
        };
        let array = |key: &'static str| {
            TextArray::from_value(key, object.get(key).ok_or(ReadError::Missing { key })?)
        };
        let (instance, centre) = (array("instance")?, array("centre")?);
        if (instance.shape, instance.flat) != (centre.shape, centre.flat) {
            return Err(ReadError::Shape { key: "centre" });
        }
        let slice = match object.get("slice") {
            None | Some(Value::Null) if instance.shape[2] < 2 => None,
            _ => Some(text("slice")?),
        };
        let norm = match text("norm")?.as_str() {
            "2" => Norm::Two,
            "max" => Norm::Max,
            _ => return Err(ReadError::Norm),
        };
        let certificate = Self {
            claim: text("claim")?,
            formula: object.get("formula").and_then(Value::as_str).unwrap_or_default().to_owned(),
            slice,
            instance,
            centre,
            radius: text("radius")?,
            norm,
            lambda_min_lower: text("lambda_min_lower")?,
            objective_lower: text("objective_lower")?,
            gradient_upper: text("gradient_upper")?,
        };
        certificate.numbers()?;
        Ok(certificate)
    }

    /// The numbers, exactly.
    ///
    /// # Errors
    /// [`ReadError::Number`], [`ReadError::NotPositive`], [`ReadError::Shape`],
    /// [`ReadError::TooLarge`].
    pub fn numbers(&self) -> Result<Numbers, ReadError> {
        let read = |key: &'static str, text: &str| {
            number::parse(text).map_err(|source| ReadError::Number { key, source })
        };
        let array = |key: &'static str, array: &TextArray| {
            let count = array.count(key)?;
            if array.values.len() != count {
                return Err(ReadError::Shape { key });
            }
            array.values.iter().map(|text| read(key, text)).collect::<Result<Vec<_>, _>>()
        };
        let positive = |key: &'static str, text: &str| {
            read(key, text).and_then(|number| {
                if number.is_positive() { Ok(number) } else { Err(ReadError::NotPositive { key }) }
            })
        };
        if self.centre.shape != self.instance.shape {
            return Err(ReadError::Shape { key: "centre" });
        }
        let gradient_upper = read("gradient_upper", &self.gradient_upper)?;
        if gradient_upper.is_negative() {
            return Err(ReadError::NotPositive { key: "gradient_upper" });
        }
        Ok(Numbers {
            instance: array("instance", &self.instance)?,
            centre: array("centre", &self.centre)?,
            radius: positive("radius", &self.radius)?,
            lambda_min_lower: positive("lambda_min_lower", &self.lambda_min_lower)?,
            objective_lower: positive("objective_lower", &self.objective_lower)?,
            gradient_upper,
        })
    }
}

impl TextArray {
    /// T d k, if it is within bounds.
    fn count(&self, key: &'static str) -> Result<usize, ReadError> {
        let [tasks, d, k] = self.shape;
        let count = tasks.checked_mul(d).and_then(|n| n.checked_mul(k)).unwrap_or(usize::MAX);
        if count == 0 {
            return Err(ReadError::Shape { key });
        }
        if count > LARGEST_UNKNOWNS {
            let what = "coordinates T d k";
            return Err(ReadError::TooLarge { what, found: count, allowed: LARGEST_UNKNOWNS });
        }
        Ok(count)
    }

    fn to_value(&self) -> Value {
        let [_, d, k] = self.shape;
        let number = |text: &String| Value::String(text.clone());
        self.values
            .chunks(d * k)
            .map(|task| {
                if self.flat {
                    return task.iter().map(number).collect::<Value>();
                }
                task.chunks(k).map(|row| row.iter().map(number).collect::<Value>()).collect()
            })
            .collect()
    }

    fn from_value(key: &'static str, value: &Value) -> Result<Self, ReadError> {
        let expected = "an array T x d or T x d x k of strings";
        let wrong = || ReadError::Type { key, expected };
        let shape = || ReadError::Shape { key };
        let rows = |value: &Value| value.as_array().cloned().ok_or_else(wrong);
        let tasks = rows(value)?;
        let first = rows(tasks.first().ok_or_else(shape)?)?;
        let flat = matches!(first.first(), Some(Value::String(_)));
        let k = match first.first().ok_or_else(shape)? {
            Value::String(_) => 1,
            row => rows(row)?.len(),
        };
        let mut array = Self { shape: [tasks.len(), first.len(), k], flat, values: Vec::new() };
        let count = array.count(key)?;
        array.values.reserve(count);
        for task in &tasks {
            let task = rows(task)?;
            if task.len() != first.len() {
                return Err(shape());
            }
            for row in &task {
                let row = if flat { vec![row.clone()] } else { rows(row)? };
                if row.len() != k {
                    return Err(shape());
                }
                for entry in row {
                    array.values.push(entry.as_str().ok_or_else(wrong)?.to_owned());
                }
            }
        }
        Ok(array)
    }
}
