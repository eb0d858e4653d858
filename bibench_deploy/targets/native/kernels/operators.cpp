// The operators of domain `bibench` for ONNX Runtime, and the function that registers them.
//
// Inputs and attributes come from a file that anybody may have written: each is checked before it
// is used, and whatever is wrong becomes an error status. No exception leaves this file.
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "binarize.h"
#include "binary_conv.h"
#include "float_stem.h"
#include "ort_abi.h"
#include "self_test.h"

namespace {

using bibench::Axis;
using bibench::InvalidModel;
using bibench::Window;
using Dimensions = std::vector<int64_t>;

// A failed call of ONNX Runtime: its own status, which goes back to it.
class RuntimeFailure {
 public:
  explicit RuntimeFailure(ort::Status* status) : status(status) {}
  ort::Status* status;
};

void check(ort::Status* status) {
  if (status != nullptr) throw RuntimeFailure(status);
}

// Runs `body`, and makes a status of what it throws.
template <class Body>
ort::Status* guarded(const ort::Api* api, const char* name, const Body& body) noexcept {
  const auto failed = [&](ort::ErrorCode code, const char* text) {
    char message[512];
    std::snprintf(message, sizeof message, "%s: %s", name, text);
    return api->create_status(code, message);
  };
  try {
    body();
    return nullptr;
  } catch (const RuntimeFailure& failure) {
    return failure.status;
  } catch (const InvalidModel& error) {
    return failed(ort::kInvalidArgument, error.what());
  } catch (const std::bad_alloc&) {
    return failed(ort::kFail, "there is not enough memory for this input");
  } catch (const std::exception& error) {
    return failed(ort::kFail, error.what());
  } catch (...) {
    return failed(ort::kFail, "an unknown error");
  }
}

std::string text_of(const Dimensions& shape) {
  std::string text = "[";
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    text += (axis ? ", " : "") + std::to_string(shape[axis]);
  }
  return text + "]";
}

// A tensor of the runtime's, with its shape; no tensor where an optional one is left out.
template <class T>
struct Tensor {
  T* data = nullptr;
  Dimensions shape;
  explicit operator bool() const { return data != nullptr; }
};

template <class T>
Tensor<T> tensor_of(const ort::Api& api, const ort::Value* value) {
  Tensor<T> tensor;
  if (value == nullptr) return tensor;
  ort::TensorInfo* info = nullptr;
  check(api.get_tensor_type_and_shape(value, &info));
  size_t rank = 0;
  ort::Status* status = api.get_dimensions_count(info, &rank);
  if (status == nullptr) {
    tensor.shape.resize(rank);
    status = api.get_dimensions(info, tensor.shape.data(), rank);
  }
  api.release_tensor_type_and_shape_info(info);
  check(status);
  for (const int64_t size : tensor.shape) bibench::checked("a dimension", size, 0, bibench::kMostElements);
  void* data = nullptr;
  check(api.get_tensor_mutable_data(const_cast<ort::Value*>(value), &data));
  // An empty tensor may have no memory, but it is there.
  static T nothing{};
  tensor.data = data != nullptr ? static_cast<T*>(data) : &nothing;
  return tensor;
}

void expect_shape(const char* what, const Dimensions& shape, const Dimensions& expected) {
  if (shape != expected) {
    throw InvalidModel(std::string(what) + " is " + text_of(shape) + ", not " + text_of(expected));
  }
}

void expect_rank(const char* what, const Dimensions& shape, size_t rank) {
  if (shape.size() != rank) {
    throw InvalidModel(std::string(what) + " is " + text_of(shape) + "; it must have " +
                       std::to_string(rank) + " dimensions");
  }
}

// What a node of the graph holds: attributes, and inputs that are constants.
class Node {
 public:
  Node(const ort::Api& api, const ort::KernelInfo* info) : api_(api), info_(info) {}

  int64_t integer(const char* name, int64_t otherwise) const {
    int64_t value = otherwise;
    return found(api_.kernel_info_get_attribute_int64(info_, name, &value)) ? value : otherwise;
  }
  float number(const char* name, float otherwise) const {
    float value = otherwise;
    return found(api_.kernel_info_get_attribute_float(info_, name, &value)) ? value : otherwise;
  }
  Dimensions integers(const char* name, const Dimensions& otherwise) const {
    size_t count = 0;
    if (!found(api_.kernel_info_get_attribute_array_int64(info_, name, nullptr, &count))) {
      return otherwise;
    }
    Dimensions values(count);
    check(api_.kernel_info_get_attribute_array_int64(info_, name, values.data(), &count));
    if (values.size() != otherwise.size()) {
      throw InvalidModel(std::string(name) + " has " + std::to_string(values.size()) +
                         " numbers, not " + std::to_string(otherwise.size()));
    }
    return values;
  }
  template <class T>
  Tensor<const T> constant(size_t index) const {
    int is_constant = 0;
    const ort::Value* value = nullptr;
    check(api_.kernel_info_get_constant_input(info_, index, &is_constant, &value));
    return is_constant ? tensor_of<const T>(api_, value) : Tensor<const T>();
  }
  template <class T>
  Tensor<const T> needed_constant(size_t index, const char* what) const {
    const Tensor<const T> tensor = constant<T>(index);
    if (!tensor) throw InvalidModel(std::string(what) + " must be a constant");
    return tensor;
  }
  // A number for each output channel, or null.
  const float* channel_constant(size_t index, const char* what, int64_t channels) const {
    const Tensor<const float> tensor = constant<float>(index);
    if (tensor) expect_shape(what, tensor.shape, {channels});
    return tensor.data;
  }
  Window window(const char* prefix, int64_t kernel_height, int64_t kernel_width) const {
    const std::string name(prefix);
    const Dimensions strides = integers((name + "strides").c_str(), {1, 1});
    const Dimensions pads = integers((name + "pads").c_str(), {0, 0, 0, 0});
    const Dimensions dilations = integers((name + "dilations").c_str(), {1, 1});
    return {{kernel_height, strides[0], dilations[0], pads[0], pads[2]},
            {kernel_width, strides[1], dilations[1], pads[1], pads[3]}};
  }
  // Reads the attributes `low` and `high` of a clip; false where there is neither.
  bool clip(float& low, float& high) const {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    low = number("low", -infinity);
    high = number("high", infinity);
    if (!(low <= high)) throw InvalidModel("low is not below high");
    return low > -infinity || high < infinity;
  }

 private:
  bool found(ort::Status* status) const {
    if (status == nullptr) return true;
    api_.release_status(status);
    return false;
  }
  const ort::Api& api_;
  const ort::KernelInfo* info_;
};

// One call of an operator: its inputs, its outputs, and the runtime's threads.
class Call : public bibench::Parallel {
 public:
  Call(const ort::Api& api, ort::KernelContext* context) : api_(api), context_(context) {}

  template <class T>
  Tensor<const T> input(size_t index) const {
    size_t count = 0;
    check(api_.kernel_context_get_input_count(context_, &count));
    const ort::Value* value = nullptr;
    if (index < count) check(api_.kernel_context_get_input(context_, index, &value));
    return tensor_of<const T>(api_, value);
  }
  template <class T>
  T* output(size_t index, const Dimensions& shape) {
    size_t count = 0;
    check(api_.kernel_context_get_output_count(context_, &count));
    ort::Value* value = nullptr;
    if (index < count) {
      check(api_.kernel_context_get_output(context_, index, shape.data(), shape.size(), &value));
    }
    return tensor_of<T>(api_, value).data;
  }
  // A constant that was none when the operator was made would be read as absent.
  void refuse_computed(size_t index, const void* constant, const char* what) const {
    if (constant == nullptr && input<float>(index)) {
      throw InvalidModel(std::string(what) + " must be a constant");
    }
  }

 protected:
  void for_each(size_t count, void (*task)(void*, size_t), void* opaque) override {
    check(api_.kernel_context_parallel_for(context_, task, count, 0, opaque));
  }

 private:
  const ort::Api& api_;
  ort::KernelContext* context_;
};

std::string set_names() {
  std::string names;
  for (auto set = bibench::available_instruction_sets(); *set != nullptr; ++set) {
    names += (names.empty() ? "" : " ") + std::string((*set)->name);
  }
  return names;
}

const bibench::InstructionSet& chosen_set() {
  const bibench::InstructionSet* set = bibench::choose_instruction_set();
  if (set != nullptr) return *set;
  throw InvalidModel("BIBENCH_NATIVE_ISA names no instruction set of this processor; it has " +
                     set_names());
}

// BinaryConv: signs, weights, scale, bias, residual?, slope?, shift?, sign_offset?
//           → numbers?, signs?
class BinaryConvOperator {
 public:
  static constexpr const char* kName = "BinaryConv";
  static constexpr size_t kInputs = 8, kRequired = 4, kOutputs = 2;
  static ort::ElementType input_type(size_t index) { return index < 2 ? ort::kUint8 : ort::kFloat; }
  static ort::ElementType output_type(size_t index) { return index ? ort::kUint8 : ort::kFloat; }

  explicit BinaryConvOperator(const Node& node) {
    const auto weights = node.needed_constant<uint8_t>(1, "weights");
    expect_rank("weights", weights.shape, 4);
    bibench::LayerShape shape;
    shape.outputs = weights.shape[0];
    shape.groups = bibench::checked("group", node.integer("group", 1), 1);
    const int64_t inputs = bibench::checked("input_channels", node.integer("input_channels", 0), 1);
    if (inputs % shape.groups != 0) throw InvalidModel("input_channels is no multiple of group");
    shape.group_inputs = inputs / shape.groups;
    shape.window = node.window("", weights.shape[1], weights.shape[2]);
    shape.pad_value = static_cast<int>(bibench::checked("pad_value", node.integer("pad_value", 0), -1, 1));
    shape.check();
    expect_shape("weights", weights.shape,
                 {shape.outputs, weights.shape[1], weights.shape[2], (shape.group_inputs + 7) / 8});
    bibench::Epilogue epilogue;
    for (const auto& [index, vector, name] : vectors(epilogue)) {
      *vector = node.channel_constant(index, name, shape.outputs);
      given_.push_back(*vector);
    }
    if (epilogue.scale == nullptr || epilogue.bias == nullptr) {
      throw InvalidModel("scale and bias must be constants");
    }
    epilogue.has_clip = node.clip(epilogue.low, epilogue.high);
    conv_ = std::make_unique<bibench::BinaryConv>(shape, weights.data, epilogue, chosen_set());
  }

  void compute(Call& call) {
    const bibench::LayerShape& shape = conv_->shape();
    const auto signs = call.input<uint8_t>(0);
    const auto residual = call.input<float>(4);
    if (!signs) throw InvalidModel("the signs are missing");
    expect_rank("the signs", signs.shape, 4);
    const int64_t batch = signs.shape[0], height = signs.shape[1], width = signs.shape[2];
    expect_shape("the signs", signs.shape, {batch, height, width, (shape.inputs() + 7) / 8});
    bibench::checked("height", height, 1);
    bibench::checked("width", width, 1);
    const int64_t rows = shape.window.vertical.output(height);
    const int64_t columns = shape.window.horizontal.output(width);
    bibench::checked_product("the output", {batch, rows, columns, shape.outputs});
    const Dimensions numbers = {batch, rows, columns, shape.outputs};
    if (residual) expect_shape("the residual", residual.shape, numbers);
    bibench::Epilogue unused;
    size_t place = 0;
    for (const auto& [index, vector, name] : vectors(unused)) {
      call.refuse_computed(index, given_[place++], name);
    }
    float* output = call.output<float>(0, numbers);
    uint8_t* packed = call.output<uint8_t>(1, {batch, rows, columns, (shape.outputs + 7) / 8});
    conv_->run(batch, height, width, signs.data, residual.data, output, packed, call);
  }

 private:
  struct Vector {
    size_t index;
    const float** place;
    const char* name;
  };
  static std::vector<Vector> vectors(bibench::Epilogue& epilogue) {
    return {{2, &epilogue.scale, "scale"},
            {3, &epilogue.bias, "bias"},
            {5, &epilogue.slope, "slope"},
            {6, &epilogue.shift, "shift"},
            {7, &epilogue.sign_offset, "sign_offset"}};
  }
  std::unique_ptr<bibench::BinaryConv> conv_;
  std::vector<const float*> given_;
};

// Binarize: numbers → signs?, numbers with channels last?
class BinarizeOperator {
 public:
  static constexpr const char* kName = "Binarize";
  static constexpr size_t kInputs = 1, kRequired = 1, kOutputs = 2;
  static ort::ElementType input_type(size_t) { return ort::kFloat; }
  static ort::ElementType output_type(size_t index) { return index ? ort::kFloat : ort::kUint8; }

  explicit BinarizeOperator(const Node& node)
      : set_(chosen_set()), channels_last_(node.integer("channels_last", 0) != 0) {}

  void compute(Call& call) {
    const auto numbers = call.input<float>(0);
    expect_rank("the numbers", numbers.shape, 4);
    Dimensions shape = numbers.shape;
    if (!channels_last_) shape = {shape[0], shape[2], shape[3], shape[1]};
    bibench::checked_product("the numbers", {shape[0], shape[1], shape[2], shape[3]});
    const int64_t positions = shape[1] * shape[2], channels = shape[3];
    uint8_t* signs = call.output<uint8_t>(0, {shape[0], shape[1], shape[2], (channels + 7) / 8});
    float* moved = call.output<float>(1, shape);
    if (shape[0] * positions * channels == 0) return;
    bibench::binarize(set_, channels_last_, shape[0], channels, positions, numbers.data, signs,
                      moved, call);
  }

 private:
  const bibench::InstructionSet& set_;
  bool channels_last_;
};

// FloatStem: image, weights, bias, sign_offset? → numbers?, signs?
class FloatStemOperator {
 public:
  static constexpr const char* kName = "FloatStem";
  static constexpr size_t kInputs = 4, kRequired = 3, kOutputs = 2;
  static ort::ElementType input_type(size_t) { return ort::kFloat; }
  static ort::ElementType output_type(size_t index) { return index ? ort::kUint8 : ort::kFloat; }

  explicit FloatStemOperator(const Node& node) {
    const auto weights = node.needed_constant<float>(1, "weights");
    const auto bias = node.needed_constant<float>(2, "bias");
    expect_rank("weights", weights.shape, 4);
    expect_shape("bias", bias.shape, {weights.shape[0]});
    bibench::StemShape shape;
    shape.outputs = weights.shape[0];
    shape.inputs = weights.shape[1];
    shape.convolution = node.window("", weights.shape[2], weights.shape[3]);
    const Dimensions pool = node.integers("pool_kernel", {1, 1});
    shape.pooling = node.window("pool_", pool[0], pool[1]);
    shape.has_clip = node.clip(shape.low, shape.high);
    sign_offset_ = node.channel_constant(3, "sign_offset", shape.outputs);
    stem_ = std::make_unique<bibench::FloatStem>(shape, weights.data, bias.data, sign_offset_,
                                                 chosen_set());
  }

  void compute(Call& call) {
    const auto image = call.input<float>(0);
    expect_rank("the image", image.shape, 4);
    call.refuse_computed(3, sign_offset_, "sign_offset");
    const int64_t batch = image.shape[0], height = image.shape[2], width = image.shape[3];
    expect_shape("the image", image.shape, {batch, stem_->shape().inputs, height, width});
    bibench::checked("height", height, 1);
    bibench::checked("width", width, 1);
    const int64_t rows = stem_->output_height(height), columns = stem_->output_width(width);
    const int64_t channels = stem_->shape().outputs;
    bibench::checked_product("the output", {batch, rows, columns, channels});
    float* output = call.output<float>(0, {batch, rows, columns, channels});
    uint8_t* signs = call.output<uint8_t>(1, {batch, rows, columns, (channels + 7) / 8});
    stem_->run(batch, height, width, image.data, output, signs, call);
  }

 private:
  std::unique_ptr<bibench::FloatStem> stem_;
  const float* sign_offset_;
};

// An operator with the interface that it was made through.
template <class Operator>
struct Kernel {
  Kernel(const ort::Api& api, const Node& node) : api(api), body(node) {}
  const ort::Api& api;
  Operator body;
};

template <class Operator>
ort::CustomOp describe() {
  using This = const ort::CustomOp*;
  ort::CustomOp op{};
  op.version = ort::kApiVersion;
  op.get_name = [](This) { return Operator::kName; };
  op.get_execution_provider_type = [](This) { return "CPUExecutionProvider"; };
  op.get_input_type = [](This, size_t index) { return Operator::input_type(index); };
  op.get_input_type_count = [](This) { return Operator::kInputs; };
  op.get_output_type = [](This, size_t index) { return Operator::output_type(index); };
  op.get_output_type_count = [](This) { return Operator::kOutputs; };
  op.get_input_characteristic = [](This, size_t index) {
    return index < Operator::kRequired ? ort::kRequired : ort::kOptional;
  };
  op.get_output_characteristic = [](This, size_t) { return ort::kOptional; };
  op.get_input_memory_type = [](This, size_t) { return ort::kDefaultMemory; };
  // None of the operators takes a variable number of tensors; the runtime asks all the same.
  op.get_variadic_input_min_arity = [](This) { return 1; };
  op.get_variadic_input_homogeneity = [](This) { return 1; };
  op.get_variadic_output_min_arity = [](This) { return 1; };
  op.get_variadic_output_homogeneity = [](This) { return 1; };
  op.get_start_version = [](This) { return 1; };
  op.get_end_version = [](This) { return std::numeric_limits<int>::max(); };
  op.create_kernel_v2 = [](This, const ort::Api* api, const ort::KernelInfo* info, void** kernel) {
    return guarded(api, Operator::kName, [&] {
      *kernel = new Kernel<Operator>(*api, Node(*api, info));
    });
  };
  op.kernel_compute_v2 = [](void* opaque, ort::KernelContext* context) {
    auto* kernel = static_cast<Kernel<Operator>*>(opaque);
    return guarded(&kernel->api, Operator::kName, [&] {
      Call call(kernel->api, context);
      kernel->body.compute(call);
    });
  };
  op.kernel_destroy = [](void* kernel) { delete static_cast<Kernel<Operator>*>(kernel); };
  return op;
}

}  // namespace

// The names of the instruction sets of this processor, with blanks between, the fastest first.
extern "C" __attribute__((visibility("default"))) const char* bibench_instruction_sets() {
  static const std::string names = set_names();
  return names.c_str();
}

extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(
    ort::SessionOptions* options, const ort::ApiBase* base) {
  const ort::Api* api = base->get_api(ort::kApiVersion);
  if (api == nullptr) {  // the entry that makes a status is in the first version, too
    const std::string text = "bibench: needs ONNX Runtime 1.17 or newer, and this is " +
                             std::string(base->get_version_string());
    return base->get_api(1)->create_status(ort::kFail, text.c_str());
  }
  return guarded(api, "bibench", [&] {
    static const char* const failing = bibench::failing_instruction_set();
    if (failing != nullptr) {
      throw std::runtime_error(std::string("the self-test fails with ") + failing +
                               "; set BIBENCH_NATIVE_ISA=portable, and report this processor");
    }
    static const ort::CustomOp conv = describe<BinaryConvOperator>();
    static const ort::CustomOp binarize = describe<BinarizeOperator>();
    static const ort::CustomOp stem = describe<FloatStemOperator>();
    static ort::CustomOpDomain* domain = nullptr;
    if (domain == nullptr) {
      ort::CustomOpDomain* made = nullptr;
      check(api->create_custom_op_domain("bibench", &made));
      for (const ort::CustomOp* op : {&conv, &binarize, &stem}) {
        check(api->custom_op_domain_add(made, op));
      }
      domain = made;
    }
    check(api->add_custom_op_domain(options, domain));
  });
}
