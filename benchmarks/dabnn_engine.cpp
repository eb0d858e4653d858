// Runs a .dab model in daBNN: dabnn_engine MODEL INPUTS OUTPUTS MAP.
//
// INPUTS and OUTPUTS are float32, one image behind the other; MAP is what is kept of each run.
// Built and run by benchmarks/dabnn_engine.py.
#include <cstdio>
#include <vector>

#include <dabnn/net.h>

int main(int, char** argv) {
  try {
    const auto net = bnn::Net::create();
    net->read(argv[1]);
    size_t size = 1;
    for (const auto side : *net->model_->inputs()->Get(0)->shape()) size *= side;
    std::vector<float> image(size);
    FILE* inputs = std::fopen(argv[2], "rb");
    FILE* outputs = std::fopen(argv[3], "wb");
    while (std::fread(image.data(), sizeof(float), size, inputs) == size) {
      net->run(image.data());
      const auto map = net->get_blob(argv[4]);
      const auto count = static_cast<size_t>(map->h) * map->w * map->c;
      std::fwrite(map->data, sizeof(float), count, outputs);
    }
    return std::fclose(outputs);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
