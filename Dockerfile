# The image of every part of the pipeline: `kpi dagster code-server | daemon | page`, `kpi gateway`,
# `kpi dashboard`, and all other commands. See deploy/README.md.
#
# Both stages have one base, as the virtual environment refers to its Python. Renew it with the
# security updates of Debian: https://hub.docker.com/_/python.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build

# Where packages come from, for a network without the public index: --build-arg PIP_INDEX_URL=…, or
# a folder of wheels with PIP_NO_INDEX=1 and PIP_FIND_LINKS. Arguments stay out of the last stage.
ARG PIP_INDEX_URL PIP_NO_INDEX PIP_FIND_LINKS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /src
RUN python3 -m venv /opt/kpi
# The dependencies first: this layer is kept until one of their versions changes. Each is a wheel with
# a known hash, so no compiler is needed. Tests and headers that some wheels bring are 80 MB.
COPY pyproject.toml requirements.txt constraints.txt README.md ./
RUN sed -n '/^setuptools==/,/[^\\]$/p' constraints.txt > build.txt \
    && /opt/kpi/bin/pip install -q --no-deps --require-hashes --only-binary :all: \
        -r build.txt -r requirements.txt \
    && cd /opt/kpi/lib/python3.*/site-packages \
    && rm -rf pandas/tests numpy/tests numpy/*/tests numpy/_core/include
# kpi_pipeline/config/ has links to these two.
COPY dagster.yaml workspace.yaml ./
COPY kpi_pipeline kpi_pipeline
COPY bison_sandbox bison_sandbox
RUN /opt/kpi/bin/pip install -q --no-build-isolation --no-deps --no-index . \
    && /opt/kpi/bin/pip uninstall -q -y setuptools pip
# Dagster's Helm chart starts these two commands: in this image they are ours, which have the login,
# the one-daemon claim and the cut of backfills.
COPY --chmod=755 deploy/containers/dagster-daemon deploy/containers/dagster-webserver /opt/kpi/bin/

FROM ${PYTHON_IMAGE}

# tini passes signals on, and ends what a run that was killed leaves behind.
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends tini >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/kpi kpi \
    && install -d -m 700 -o kpi -g kpi /var/lib/kpi
COPY --from=build /opt/kpi /opt/kpi

ENV PATH=/opt/kpi/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    KPI_STATE_DIR=/var/lib/kpi \
    KPI_ENV_FILE= \
    DAGSTER_HOME=/var/lib/kpi/dagster \
    DAGSTER_DISABLE_TELEMETRY=yes \
    DAGSTER_EVENT_BATCH_SIZE=500
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
WORKDIR /var/lib/kpi
VOLUME /var/lib/kpi
ENTRYPOINT ["tini", "--"]
CMD ["kpi", "--help"]
