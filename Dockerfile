# The service with the bundled models: docker build --tag codec-slm . && docker run --publish 8000:8000 codec-slm
FROM python:3.11-slim

# --build-arg TORCH_INDEX=URL: a package index with builds of torch for the CPU alone, which are smaller by some 4 GB
ARG TORCH_INDEX
WORKDIR /opt/codec-slm
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} $(grep -E '^(torch|torchaudio)==' constraints.txt)
COPY codec codec
COPY data data
COPY slm slm
COPY recipes recipes
RUN pip install --no-cache-dir --constraint constraints.txt '.[serve]' \
    && rm -rf codec data slm recipes build *.egg-info

RUN useradd --create-home speech
USER speech
WORKDIR /home/speech
ENV HF_HUB_OFFLINE=1
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://localhost:8000/health')"]
ENTRYPOINT ["codec-slm", "serve", "--host", "0.0.0.0"]
