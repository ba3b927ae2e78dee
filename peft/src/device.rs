//! Where numbers live: a device and a floating-point type, both chosen at run time.

use crate::PeftError;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Floating-point type of all parameters and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    F32,
    /// IEEE double precision; on the CPU only.
    F64,
}

impl Precision {
    /// Distance from 1 to the next number.
    pub fn epsilon(self) -> f64 {
        match self {
            Precision::F32 => f64::from(f32::EPSILON),
            Precision::F64 => f64::EPSILON,
        }
    }

    pub(crate) fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        }
    }
}

/// A device with the floating-point type used on it.
#[derive(Clone, Debug)]
pub struct Place {
    device: Device,
    precision: Precision,
}

impl Place {
    /// The CPU.
    pub fn cpu(precision: Precision) -> Self {
        Self { device: Device::flex(), precision }
    }

    /// The NVIDIA GPU of number `index`, in single precision.
    ///
    /// # Errors
    /// [`PeftError::Device`] where this build has no support for it, or no driver answers.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
    pub fn cuda(index: usize) -> Result<Self, PeftError> {
        #[cfg(feature = "cuda")]
        {
            if !driver_answers() {
                return Err(PeftError::Device {
                    name: "cuda",
                    reason: "no NVIDIA driver (libcuda) was found; use the device cpu",
                });
            }
            Ok(Self { device: Device::cuda(index), precision: Precision::F32 })
        }
        #[cfg(not(feature = "cuda"))]
        Err(PeftError::Device {
            name: "cuda",
            reason: "this binary was built without the feature `cuda`; use the device cpu",
        })
    }

    /// The floating-point type.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A tensor of `values` in row-major order.
    ///
    /// # Errors
    /// [`PeftError::Shape`] where their number is not the product of `shape`.
    pub fn tensor<const D: usize>(
        &self,
        values: Vec<f64>,
        shape: [usize; D],
    ) -> Result<Tensor<D>, PeftError> {
        check_len(values.len(), &shape)?;
        let data = match self.precision {
            Precision::F64 => TensorData::new(values, shape),
            Precision::F32 => {
                TensorData::new(values.iter().map(|&x| x as f32).collect::<Vec<_>>(), shape)
            }
        };
        Ok(Tensor::from_data(data, (&self.device, self.precision.dtype())))
    }

    /// A tensor of single-precision `values` in row-major order, without a detour through `f64`.
    ///
    /// # Errors
    /// As [`Place::tensor`].
    pub fn tensor_f32<const D: usize>(
        &self,
        values: Vec<f32>,
        shape: [usize; D],
    ) -> Result<Tensor<D>, PeftError> {
        check_len(values.len(), &shape)?;
        let data = TensorData::new(values, shape);
        Ok(Tensor::from_data(data, (&self.device, self.precision.dtype())))
    }

    /// A tensor of whole numbers.
    ///
    /// # Errors
    /// As [`Place::tensor`].
    pub fn integers<const D: usize>(
        &self,
        values: Vec<i64>,
        shape: [usize; D],
    ) -> Result<Tensor<D, Int>, PeftError> {
        check_len(values.len(), &shape)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), (&self.device, DType::I64)))
    }

    /// Zeros.
    pub fn zeros<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::zeros(shape, (&self.device, self.precision.dtype()))
    }
}

/// The numbers of a tensor, row-major, in double precision.
///
/// # Errors
/// [`PeftError::Execution`] where the device fails.
pub fn values<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f64>, PeftError> {
    tensor.clone().inner().try_to_vec_as::<f64>().map_err(|error| PeftError::Execution {
        what: "a tensor's numbers",
        problem: error.to_string(),
    })
}

/// The number that a tensor of one element holds.
///
/// # Errors
/// As [`values`].
pub fn scalar(tensor: &Tensor<1>) -> Result<f64, PeftError> {
    Ok(values(tensor)?.first().copied().unwrap_or(f64::NAN))
}

fn check_len(found: usize, shape: &[usize]) -> Result<(), PeftError> {
    let expected = shape.iter().product::<usize>();
    if found == expected {
        return Ok(());
    }
    Err(PeftError::Shape {
        name: "numbers of a tensor".into(),
        expected: shape.to_vec(),
        found: vec![found],
    })
}

/// The back end would panic in a thread of its own where the driver is missing.
#[cfg(feature = "cuda")]
fn driver_answers() -> bool {
    // SAFETY: the call takes no argument; it only tries to open the driver's library, whose
    // initialisers are NVIDIA's, as every later use of the device would.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_way_in_and_out() {
        // A third is no single-precision number: only f64 may return it unchanged.
        let third = vec![1.0 / 3.0, -2.0];
        let double = Place::cpu(Precision::F64).tensor(third.clone(), [2]).unwrap();
        assert_eq!(values(&double).unwrap(), third);
        let single = Place::cpu(Precision::F32).tensor(third.clone(), [2]).unwrap();
        assert_eq!(values(&single).unwrap(), vec![f64::from(1.0f32 / 3.0), -2.0]);
    }

    #[test]
    fn a_wrong_number_of_elements_is_refused() {
        let place = Place::cpu(Precision::F32);
        assert!(matches!(place.tensor(vec![1.0; 5], [2, 3]), Err(PeftError::Shape { .. })));
        assert!(matches!(place.integers(vec![1; 5], [2, 3]), Err(PeftError::Shape { .. })));
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_device_that_was_not_built_in_says_so() {
        let error = Place::cuda(0).unwrap_err();
        assert!(error.to_string().contains("feature `cuda`"), "{error}");
    }
}
