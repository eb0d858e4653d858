// The few parts of ONNX Runtime's C interface that the operators use, declared by hand: building
// the library needs no headers, and the binary runs in every release from 1.20 on.
//
// OrtApi is a table of functions that only ever grows at its end: the number of an entry is its
// place for good. OrtCustomOp is read as far as its `version` says. Source: ONNX Runtime,
// include/onnxruntime/core/session/onnxruntime_c_api.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ort {

// The version of the interface that is asked for: the first with every function below.
constexpr uint32_t kApiVersion = 17;

struct Status;
struct Value;
struct KernelInfo;
struct KernelContext;
struct SessionOptions;
struct CustomOpDomain;
struct TensorInfo;
struct CustomOp;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum ElementType : int { kUndefined = 0, kFloat = 1, kUint8 = 2 };
enum Characteristic : int { kRequired = 0, kOptional = 1 };
enum MemoryType : int { kDefaultMemory = 0 };

struct Api {
  Status* (*create_status)(ErrorCode, const char*);  // 0
  void* entry_1;
  const char* (*get_error_message)(const Status*);  // 2
  void* entries_3[23];
  Status* (*create_custom_op_domain)(const char*, CustomOpDomain**);              // 26
  Status* (*custom_op_domain_add)(CustomOpDomain*, const CustomOp*);              // 27
  Status* (*add_custom_op_domain)(SessionOptions*, CustomOpDomain*);              // 28
  void* entries_29[22];
  Status* (*get_tensor_mutable_data)(Value*, void**);  // 51
  void* entries_52[9];
  Status* (*get_dimensions_count)(const TensorInfo*, size_t*);          // 61
  Status* (*get_dimensions)(const TensorInfo*, int64_t*, size_t);       // 62
  void* entries_63[2];
  Status* (*get_tensor_type_and_shape)(const Value*, TensorInfo**);  // 65
  void* entries_66[19];
  Status* (*kernel_info_get_attribute_float)(const KernelInfo*, const char*, float*);    // 85
  Status* (*kernel_info_get_attribute_int64)(const KernelInfo*, const char*, int64_t*);  // 86
  void* entry_87;
  Status* (*kernel_context_get_input_count)(const KernelContext*, size_t*);   // 88
  Status* (*kernel_context_get_output_count)(const KernelContext*, size_t*);  // 89
  Status* (*kernel_context_get_input)(const KernelContext*, size_t, const Value**);  // 90
  Status* (*kernel_context_get_output)(KernelContext*, size_t, const int64_t*, size_t,
                                       Value**);  // 91
  void* entry_92;
  void (*release_status)(Status*);  // 93
  void* entries_94[5];
  void (*release_tensor_type_and_shape_info)(TensorInfo*);  // 99
  void* entries_100[63];
  Status* (*kernel_info_get_attribute_array_int64)(const KernelInfo*, const char*, int64_t*,
                                                   size_t*);  // 163
  void* entries_164[85];
  Status* (*kernel_info_get_constant_input)(const KernelInfo*, size_t, int*, const Value**);  // 249
  void* entries_250[24];
  Status* (*kernel_context_parallel_for)(const KernelContext*, void (*)(void*, size_t), size_t,
                                         size_t, void*);  // 274
};

static_assert(offsetof(Api, create_custom_op_domain) == 26 * sizeof(void*));
static_assert(offsetof(Api, get_tensor_mutable_data) == 51 * sizeof(void*));
static_assert(offsetof(Api, get_dimensions_count) == 61 * sizeof(void*));
static_assert(offsetof(Api, get_tensor_type_and_shape) == 65 * sizeof(void*));
static_assert(offsetof(Api, kernel_info_get_attribute_float) == 85 * sizeof(void*));
static_assert(offsetof(Api, kernel_context_get_output) == 91 * sizeof(void*));
static_assert(offsetof(Api, release_tensor_type_and_shape_info) == 99 * sizeof(void*));
static_assert(offsetof(Api, kernel_info_get_attribute_array_int64) == 163 * sizeof(void*));
static_assert(offsetof(Api, kernel_info_get_constant_input) == 249 * sizeof(void*));
static_assert(offsetof(Api, kernel_context_parallel_for) == 274 * sizeof(void*));

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*get_version_string)();
};

// Of interface version 17.
struct CustomOp {
  uint32_t version;
  void* create_kernel;  // what follows at the end has taken its place
  const char* (*get_name)(const CustomOp*);
  const char* (*get_execution_provider_type)(const CustomOp*);
  ElementType (*get_input_type)(const CustomOp*, size_t);
  size_t (*get_input_type_count)(const CustomOp*);
  ElementType (*get_output_type)(const CustomOp*, size_t);
  size_t (*get_output_type_count)(const CustomOp*);
  void* kernel_compute;
  void (*kernel_destroy)(void*);
  Characteristic (*get_input_characteristic)(const CustomOp*, size_t);
  Characteristic (*get_output_characteristic)(const CustomOp*, size_t);
  MemoryType (*get_input_memory_type)(const CustomOp*, size_t);
  int (*get_variadic_input_min_arity)(const CustomOp*);
  int (*get_variadic_input_homogeneity)(const CustomOp*);
  int (*get_variadic_output_min_arity)(const CustomOp*);
  int (*get_variadic_output_homogeneity)(const CustomOp*);
  Status* (*create_kernel_v2)(const CustomOp*, const Api*, const KernelInfo*, void**);
  Status* (*kernel_compute_v2)(void*, KernelContext*);
  void* infer_output_shape;
  int (*get_start_version)(const CustomOp*);
  int (*get_end_version)(const CustomOp*);
};

}  // namespace ort
