"""A client process: streaming_client.py PROTO_OUT ADDRESS STREAMS MAX_TOKENS SEED.

Writes "streaming" once every stream has its first message, and then one line for each that ended:
its code and the tokens it got.
"""

import sys
import threading

import grpc

sys.path.insert(0, sys.argv[1])
from asymserve.v1 import inference_pb2 as pb  # noqa: E402
from asymserve.v1 import inference_pb2_grpc  # noqa: E402


def main():
    address, streams, max_tokens, seed = sys.argv[2], *map(int, sys.argv[3:])
    stub = inference_pb2_grpc.InferenceStub(grpc.insecure_channel(address))
    first = threading.Semaphore(0)
    lock = threading.Lock()

    def run(index):
        request = pb.GenerateRequest(
            prompt=f"client {seed}, stream {index}",
            sampling=pb.Sampling(seed=seed + index),
            stop=pb.Stop(max_tokens=max_tokens, ignore_eos=True),
            return_token_ids=True,
        )
        tokens, code = 0, grpc.StatusCode.OK
        try:
            for message in stub.Generate(request):
                if tokens == 0:
                    first.release()
                tokens += len(message.tokens)
        except grpc.RpcError as error:
            code = error.code()
        if tokens == 0:
            first.release()
        with lock:
            print(code.name, tokens, flush=True)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(streams)]
    for thread in threads:
        thread.start()
    for _ in threads:
        first.acquire()
    with lock:
        print("streaming", flush=True)
    for thread in threads:
        thread.join()


main()
