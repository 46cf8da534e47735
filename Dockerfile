# The book, built and served:
#   docker build -t pinnntk .
#   docker run --rm -p 8000:8000 pinnntk         then open http://localhost:8000
#   docker run --rm -it pinnntk make test        runs the tests, with the browser
FROM python:3.11-slim-bookworm

# Playwright, which drives the browser in the tests, needs libatomic1.
# Debian keeps only the newest version of a browser, so a pinned one is soon gone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends chromium git libatomic1 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /pinnntk
# the packages first, so that a change of the book does not install them again
COPY Makefile pyproject.toml requirements.txt requirements.lock README.md LICENSE ./
COPY pinnntk_lib pinnntk_lib
RUN make install
COPY . .
RUN touch .venv/installed && make book

EXPOSE 8000
CMD [".venv/bin/python", "-m", "http.server", "8000", "--directory", "_build/html"]
