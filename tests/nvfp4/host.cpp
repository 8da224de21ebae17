// The header of the kernels, compiled for the host, behind library.h. Rows and blocks are walked here
// in their own way, so that the kernels' index arithmetic is checked against another.
#include "library.h"

#include "nvfp4KvConvert.h"

#include <vector>

using namespace nvfp4_kv;

extern "C" int convertRange(int conversion, std::uint32_t first, std::int64_t count, std::uint8_t* codes)
{
    for (std::int64_t i = 0; i < count; ++i)
    {
        float const value = floatOf(first + static_cast<std::uint32_t>(i));
        switch (conversion)
        {
        case TO_E4M3_SOFTWARE: codes[i] = floatToE4m3Software(value); break;
        case TO_E4M3: codes[i] = floatToE4m3(value); break;
        case TO_E2M1: codes[i] = floatToE2m1(value); break;
        default: return UNKNOWN;
        }
    }
    return 0;
}

extern "C" int convert(std::int64_t count, float const* values, std::uint8_t* codes, std::int64_t)
{
    for (std::int64_t i = 0; i < count; ++i)
    {
        codes[i] = floatToE4m3(values[i]);
    }
    return 0;
}

extern "C" int decode(int decoding, std::int64_t count, std::uint16_t const* codes, std::uint32_t* bits)
{
    for (std::int64_t i = 0; i < count; ++i)
    {
        switch (decoding)
        {
        case FROM_E4M3: bits[i] = bitsOf(e4m3ToFloat(static_cast<std::uint8_t>(codes[i]))); break;
        case FROM_E2M1: bits[i] = bitsOf(e2m1ToFloat(static_cast<std::uint8_t>(codes[i]))); break;
        case FROM_FLOAT16: bits[i] = bitsOf(halfToFloat(codes[i])); break;
        case FROM_BFLOAT16: bits[i] = bitsOf(bfloat16ToFloat(codes[i])); break;
        default: return UNKNOWN;
        }
    }
    return 0;
}

extern "C" int quantize(void const* values, int type, std::int64_t rows, std::int64_t cols, float tensorScale,
    std::uint8_t* packed, std::uint8_t* scales, std::int64_t)
{
    std::vector<float> row(cols);
    for (std::int64_t r = 0; r < rows; ++r)
    {
        for (std::int64_t c = 0; c < cols; ++c)
        {
            std::int64_t const at = r * cols + c;
            row[c] = type == 0 ? static_cast<float const*>(values)[at]
                : type == 1    ? halfToFloat(static_cast<std::uint16_t const*>(values)[at])
                               : bfloat16ToFloat(static_cast<std::uint16_t const*>(values)[at]);
        }
        std::uint8_t* to = packed + r * ((cols + 1) / 2);
        for (std::int64_t c = 0; c < cols; c += kBlock)
        {
            int const count = static_cast<int>(cols - c < kBlock ? cols - c : kBlock);
            std::uint64_t codes = 0;
            *scales++ = quantizeBlock(row.data() + c, count, tensorScale, codes);
            for (int i = 0; i < count; i += 2)
            {
                *to++ = static_cast<std::uint8_t>(codes >> (4 * i));
            }
        }
    }
    return 0;
}

template <typename Store>
void eachValue(std::uint8_t const* packed, std::uint8_t const* scales, std::int64_t rows, std::int64_t cols,
    float factor, Store store)
{
    std::int64_t const perRow = (cols + kBlock - 1) / kBlock;
    for (std::int64_t r = 0; r < rows; ++r)
    {
        for (std::int64_t c = 0; c < cols; ++c)
        {
            std::uint8_t const two = packed[r * ((cols + 1) / 2) + c / 2];
            std::uint8_t const code = c % 2 != 0 ? two >> 4 : two & 15;
            store(r * cols + c, nvfp4_kv::dequantize(code, blockFactor(scales[r * perRow + c / kBlock]), factor));
        }
    }
}

extern "C" int dequantize(std::uint8_t const* packed, std::uint8_t const* scales, std::int64_t rows,
    std::int64_t cols, float tensorScale, float* values, std::int64_t)
{
    eachValue(packed, scales, rows, cols, floatFactor(tensorScale),
        [&](std::int64_t at, float value) { values[at] = value; });
    return 0;
}

extern "C" int dequantizeToE4m3(std::uint8_t const* packed, std::uint8_t const* scales, std::int64_t rows,
    std::int64_t cols, float tensorScale, float fp8Scale, std::uint8_t* values, std::int64_t)
{
    eachValue(packed, scales, rows, cols, e4m3Factor(tensorScale, fp8Scale),
        [&](std::int64_t at, float value) { values[at] = floatToE4m3(value); });
    return 0;
}
