// What the checks call, the same for the host's code and the device's: tests/nvfp4/library.py.
// Every pointer is host memory. Each gives 0, or a number that says what went wrong.
#pragma once

#include <cstdint>

enum Conversion
{
    TO_E4M3_SOFTWARE = 0,  // floatToE4m3Software
    TO_E4M3 = 1,           // floatToE4m3: what NVFP4_KV_FP8_CVT chose
    TO_E4M3_INTRINSIC = 2, // the CUDA toolkit's own
    TO_E2M1 = 3,
};

enum Decoding
{
    FROM_E4M3 = 0,
    FROM_E2M1 = 1,
    FROM_FLOAT16 = 2,
    FROM_BFLOAT16 = 3,
};

constexpr int GUARD_BROKEN = 100001; // bytes beside a result were written
constexpr int UNKNOWN = 100002;      // no such conversion here

extern "C"
{
// The floats with bit patterns first, first + 1, ..., converted.
int convertRange(int conversion, std::uint32_t first, std::int64_t count, std::uint8_t* codes);
int convert(std::int64_t count, float const* values, std::uint8_t* codes, std::int64_t shift);
int decode(int decoding, std::int64_t count, std::uint16_t const* codes, std::uint32_t* bits);
// shift: by how many values (or bytes of codes) the memory that is worked on is out of alignment.
int quantize(void const* values, int type, std::int64_t rows, std::int64_t cols, float tensorScale,
    std::uint8_t* packed, std::uint8_t* scales, std::int64_t shift);
int dequantize(std::uint8_t const* packed, std::uint8_t const* scales, std::int64_t rows, std::int64_t cols,
    float tensorScale, float* values, std::int64_t shift);
int dequantizeToE4m3(std::uint8_t const* packed, std::uint8_t const* scales, std::int64_t rows,
    std::int64_t cols, float tensorScale, float fp8Scale, std::uint8_t* values, std::int64_t shift);
}
