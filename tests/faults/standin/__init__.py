"""Stand-ins for torch and FlashInfer, with which the smoke programs run where no GPU is.

They are installed into a virtual environment of a test, never imported from here. `torch` computes
with numpy and claims the GPU that STANDIN_GPU names; `flashinfer` computes right, or wrong in the
way that STANDIN_FAULT names. Only to plant faults: what they pass says nothing about a GPU.
"""
