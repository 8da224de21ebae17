// The kernels behind library.h, on the GPU: memory from the host is copied there and back. Every buffer
// is out of alignment as asked and has guard bytes on both sides, which must survive.
#include "library.h"

#include "nvfp4KvConvert.h"
#include "nvfp4KvKernels.h"

#include <cuda_runtime.h>

#include <vector>

namespace
{

constexpr std::size_t kGuard = 256;
constexpr std::uint8_t kGuardByte = 0xA5;

// One buffer on the device with guards; copies in when made, out on `fetch`.
class Buffer
{
public:
    Buffer(void const* from, std::size_t bytes, std::size_t shift)
        : mBytes(bytes)
        , mShift(shift)
    {
        mStatus = cudaMalloc(&mBase, total());
        keep(cudaMemset(mBase, kGuardByte, total()));
        if (from != nullptr)
        {
            keep(cudaMemcpy(data(), from, bytes, cudaMemcpyHostToDevice));
        }
    }

    ~Buffer()
    {
        cudaFree(mBase);
    }

    Buffer(Buffer const&) = delete;

    std::uint8_t* data() const
    {
        return static_cast<std::uint8_t*>(mBase) + kGuard + mShift;
    }

    int status() const
    {
        return mStatus;
    }

    int fetch(void* to) const
    {
        std::vector<std::uint8_t> all(total());
        int const status = cudaMemcpy(all.data(), mBase, total(), cudaMemcpyDeviceToHost);
        if (status != cudaSuccess)
        {
            return status;
        }
        for (std::size_t i = 0; i < total(); ++i)
        {
            bool const guard = i < kGuard + mShift || i >= kGuard + mShift + mBytes;
            if (guard && all[i] != kGuardByte)
            {
                return GUARD_BROKEN;
            }
        }
        memcpy(to, all.data() + kGuard + mShift, mBytes);
        return 0;
    }

private:
    std::size_t total() const
    {
        return kGuard + mShift + mBytes + kGuard;
    }

    void keep(int status)
    {
        mStatus = mStatus != 0 ? mStatus : status;
    }

    void* mBase = nullptr;
    std::size_t mBytes;
    std::size_t mShift;
    int mStatus = 0;
};

int firstOf(std::initializer_list<int> statuses)
{
    for (int const status : statuses)
    {
        if (status != 0)
        {
            return status;
        }
    }
    return 0;
}

__device__ std::uint8_t converted(int conversion, std::uint32_t bits)
{
    float const value = nvfp4_kv::floatOf(bits);
    switch (conversion)
    {
    case TO_E4M3_SOFTWARE: return nvfp4_kv::floatToE4m3Software(value);
    case TO_E4M3: return nvfp4_kv::floatToE4m3(value);
    case TO_E4M3_INTRINSIC: return nvfp4_kv::floatToE4m3Intrinsic(value);
    default: return nvfp4_kv::floatToE2m1(value);
    }
}

__global__ void convertRangeKernel(int conversion, std::uint32_t first, std::int64_t count, std::uint8_t* codes)
{
    std::int64_t const stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride)
    {
        codes[i] = converted(conversion, first + static_cast<std::uint32_t>(i));
    }
}

__global__ void decodeKernel(int decoding, std::int64_t count, std::uint16_t const* codes, std::uint32_t* bits)
{
    std::int64_t const i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= count)
    {
        return;
    }
    float value = 0.0f;
    switch (decoding)
    {
    case FROM_E4M3: value = nvfp4_kv::e4m3ToFloat(static_cast<std::uint8_t>(codes[i])); break;
    case FROM_E2M1: value = nvfp4_kv::e2m1ToFloat(static_cast<std::uint8_t>(codes[i])); break;
    case FROM_FLOAT16: value = nvfp4_kv::halfToFloat(codes[i]); break;
    default: value = nvfp4_kv::bfloat16ToFloat(codes[i]); break;
    }
    bits[i] = nvfp4_kv::bitsOf(value);
}

std::size_t packedBytes(std::int64_t rows, std::int64_t cols)
{
    return static_cast<std::size_t>(rows * ((cols + 1) / 2));
}

std::size_t scaleBytes(std::int64_t rows, std::int64_t cols)
{
    return static_cast<std::size_t>(rows * ((cols + 15) / 16));
}

} // namespace

extern "C" int convertRange(int conversion, std::uint32_t first, std::int64_t count, std::uint8_t* codes)
{
    if (conversion < TO_E4M3_SOFTWARE || conversion > TO_E2M1)
    {
        return UNKNOWN;
    }
    std::uint8_t* on = nullptr;
    int status = cudaMalloc(&on, count);
    if (status == cudaSuccess)
    {
        convertRangeKernel<<<4096, 256>>>(conversion, first, count, on);
        status = firstOf({cudaGetLastError(), cudaMemcpy(codes, on, count, cudaMemcpyDeviceToHost)});
    }
    cudaFree(on);
    return status;
}

extern "C" int convert(std::int64_t count, float const* values, std::uint8_t* codes, std::int64_t shift)
{
    Buffer const in(values, count * sizeof(float), shift * sizeof(float));
    Buffer const out(nullptr, count, shift);
    int const launched = firstOf({in.status(), out.status(),
        nvfp4KvFloatToE4m3(reinterpret_cast<float const*>(in.data()), count, out.data(), nullptr)});
    return launched != 0 ? launched : out.fetch(codes);
}

extern "C" int decode(int decoding, std::int64_t count, std::uint16_t const* codes, std::uint32_t* bits)
{
    Buffer const in(codes, count * sizeof(*codes), 0);
    Buffer const out(nullptr, count * sizeof(*bits), 0);
    if (int const status = firstOf({in.status(), out.status()}))
    {
        return status;
    }
    decodeKernel<<<static_cast<unsigned>((count + 255) / 256), 256>>>(decoding, count,
        reinterpret_cast<std::uint16_t const*>(in.data()), reinterpret_cast<std::uint32_t*>(out.data()));
    int const launched = cudaGetLastError();
    return launched != 0 ? launched : out.fetch(bits);
}

extern "C" int quantize(void const* values, int type, std::int64_t rows, std::int64_t cols, float tensorScale,
    std::uint8_t* packed, std::uint8_t* scales, std::int64_t shift)
{
    std::size_t const each = type == NVFP4_KV_FLOAT32 ? 4 : 2;
    Buffer const in(values, rows * cols * each, shift * each);
    Buffer const scale(&tensorScale, sizeof(float), 0);
    Buffer const codes(nullptr, packedBytes(rows, cols), shift);
    Buffer const factors(nullptr, scaleBytes(rows, cols), shift);
    int const launched = firstOf({in.status(), scale.status(), codes.status(), factors.status(),
        nvfp4KvQuantize(in.data(), type, rows, cols, reinterpret_cast<float const*>(scale.data()), codes.data(),
            factors.data(), nullptr)});
    return launched != 0 ? launched : firstOf({codes.fetch(packed), factors.fetch(scales)});
}

extern "C" int dequantize(std::uint8_t const* packed, std::uint8_t const* scales, std::int64_t rows,
    std::int64_t cols, float tensorScale, float* values, std::int64_t shift)
{
    Buffer const codes(packed, packedBytes(rows, cols), shift);
    Buffer const factors(scales, scaleBytes(rows, cols), shift);
    Buffer const scale(&tensorScale, sizeof(float), 0);
    Buffer const out(nullptr, rows * cols * sizeof(float), shift * sizeof(float));
    int const launched = firstOf({codes.status(), factors.status(), scale.status(), out.status(),
        nvfp4KvDequantize(codes.data(), factors.data(), rows, cols, reinterpret_cast<float const*>(scale.data()),
            reinterpret_cast<float*>(out.data()), nullptr)});
    return launched != 0 ? launched : out.fetch(values);
}

extern "C" int dequantizeToE4m3(std::uint8_t const* packed, std::uint8_t const* scales, std::int64_t rows,
    std::int64_t cols, float tensorScale, float fp8Scale, std::uint8_t* values, std::int64_t shift)
{
    float const both[] = {tensorScale, fp8Scale};
    Buffer const codes(packed, packedBytes(rows, cols), shift);
    Buffer const factors(scales, scaleBytes(rows, cols), shift);
    Buffer const on(both, sizeof(both), 0);
    Buffer const out(nullptr, rows * cols, shift);
    float const* const scale = reinterpret_cast<float const*>(on.data());
    int const launched = firstOf({codes.status(), factors.status(), on.status(), out.status(),
        nvfp4KvDequantizeToE4m3(
            codes.data(), factors.data(), rows, cols, scale, scale + 1, out.data(), nullptr)});
    return launched != 0 ? launched : out.fetch(values);
}

// --- what only a device has --------------------------------------------------------------------------

extern "C" int describe(char* name, int length, int* numbers)
{
    cudaDeviceProp device;
    if (int const status = cudaGetDeviceProperties(&device, 0))
    {
        return status;
    }
    strncpy(name, device.name, length - 1);
    numbers[0] = device.major;
    numbers[1] = device.minor;
    return firstOf({cudaDriverGetVersion(numbers + 2), cudaRuntimeGetVersion(numbers + 3)});
}

// What the launchers answer to nonsense: calls made without touching memory. 0 where all is refused.
extern "C" int refusals()
{
    std::uint8_t* const bytes = nullptr;
    float* const floats = nullptr;
    std::int64_t const huge = std::int64_t(1) << 40;
    int const wanted = cudaErrorInvalidValue;
    int const refused[] = {
        nvfp4KvQuantize(floats, 0, 1, 16, floats, bytes, bytes, nullptr),
        nvfp4KvQuantize(floats, 3, 0, 16, floats, bytes, bytes, nullptr),
        nvfp4KvQuantize(floats, -1, 0, 16, floats, bytes, bytes, nullptr),
        nvfp4KvQuantize(floats, 0, -1, 16, floats, bytes, bytes, nullptr),
        nvfp4KvQuantize(floats, 0, 16, -1, floats, bytes, bytes, nullptr),
        nvfp4KvQuantize(floats, 0, huge, huge, floats, bytes, bytes, nullptr),
        nvfp4KvDequantize(bytes, bytes, 1, 16, floats, floats, nullptr),
        nvfp4KvDequantize(bytes, bytes, -1, 16, floats, floats, nullptr),
        nvfp4KvDequantizeToE4m3(bytes, bytes, 1, 16, floats, floats, bytes, nullptr),
        nvfp4KvDequantizeToE4m3(bytes, bytes, 1, -16, floats, floats, bytes, nullptr),
        nvfp4KvFloatToE4m3(floats, 1, bytes, nullptr),
        nvfp4KvFloatToE4m3(floats, -1, bytes, nullptr),
    };
    int at = 0;
    for (int const status : refused)
    {
        ++at;
        if (status != wanted)
        {
            return at;
        }
    }
    int const nothing[] = {
        nvfp4KvQuantize(floats, 0, 0, 16, floats, bytes, bytes, nullptr),
        nvfp4KvQuantize(floats, 2, 16, 0, floats, bytes, bytes, nullptr),
        nvfp4KvDequantize(bytes, bytes, 0, 16, floats, floats, nullptr),
        nvfp4KvDequantizeToE4m3(bytes, bytes, 16, 0, floats, floats, bytes, nullptr),
        nvfp4KvFloatToE4m3(floats, 0, bytes, nullptr),
    };
    for (int const status : nothing)
    {
        ++at;
        if (status != cudaSuccess)
        {
            return at;
        }
    }
    return cudaGetLastError() == cudaSuccess ? 0 : at + 1;
}

// Milliseconds of one run of each kernel on rows x cols, the mean of `repeats` after one warm-up:
// quantise from float16, to float, to E4M3, float -> E4M3.
extern "C" int timings(std::int64_t rows, std::int64_t cols, int repeats, float* milliseconds)
{
    std::int64_t const count = rows * cols;
    std::vector<std::uint16_t> halves(count);
    std::uint32_t state = 1;
    for (auto& half : halves)
    {
        state = state * 1664525u + 1013904223u;
        half = static_cast<std::uint16_t>((state >> 16) & 0xBBFFu); // magnitudes below 1
    }
    float const both[] = {1.0f / (6 * 448), 1.0f / 448};
    Buffer const in(halves.data(), count * 2, 0);
    Buffer const on(both, sizeof(both), 0);
    Buffer const packed(nullptr, packedBytes(rows, cols), 0);
    Buffer const scales(nullptr, scaleBytes(rows, cols), 0);
    Buffer const floats(nullptr, count * 4, 0);
    Buffer const bytes(nullptr, count, 0);
    auto* const scale = reinterpret_cast<float const*>(on.data());
    auto* const wide = reinterpret_cast<float*>(floats.data());
    int status = firstOf(
        {in.status(), on.status(), packed.status(), scales.status(), floats.status(), bytes.status()});
    cudaEvent_t from;
    cudaEvent_t to;
    cudaEventCreate(&from);
    cudaEventCreate(&to);
    for (int kernel = 0; kernel < 4 && status == 0; ++kernel)
    {
        for (int i = -1; i < repeats && status == 0; ++i)
        {
            if (i == 0)
            {
                cudaEventRecord(from);
            }
            switch (kernel)
            {
            case 0:
                status = nvfp4KvQuantize(
                    in.data(), NVFP4_KV_FLOAT16, rows, cols, scale, packed.data(), scales.data(), nullptr);
                break;
            case 1:
                status = nvfp4KvDequantize(packed.data(), scales.data(), rows, cols, scale, wide, nullptr);
                break;
            case 2:
                status = nvfp4KvDequantizeToE4m3(
                    packed.data(), scales.data(), rows, cols, scale, scale + 1, bytes.data(), nullptr);
                break;
            default: status = nvfp4KvFloatToE4m3(wide, count, bytes.data(), nullptr); break;
            }
        }
        cudaEventRecord(to);
        status = firstOf({status, cudaEventSynchronize(to), cudaEventElapsedTime(milliseconds + kernel, from, to)});
        milliseconds[kernel] /= static_cast<float>(repeats);
    }
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    return status;
}
