import java.net.URI;

import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.MetricsConfig;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.retrieval.RetrievalConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/** Reads a stream from its oldest record as KCL does by default, and drops what it reads. */
public final class KclReader {
    /** Does nothing. */
    static final class Dropping implements ShardRecordProcessor {
        @Override
        public void initialize(InitializationInput input) {}

        @Override
        public void processRecords(ProcessRecordsInput input) {}

        @Override
        public void leaseLost(LeaseLostInput input) {}

        @Override
        public void shardEnded(ShardEndedInput input) {}

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {}
    }

    public static void main(String[] arguments) throws InterruptedException {
        var credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        var region = Region.US_EAST_1;
        var kinesis = KinesisAsyncClient.builder()
                .endpointOverride(URI.create(System.getenv("KINESIS_ENDPOINT")))
                .region(region).credentialsProvider(credentials)
                .httpClient(NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1).build()).build();
        var dynamodb = DynamoDbAsyncClient.builder()
                .endpointOverride(URI.create(System.getenv("DYNAMODB_ENDPOINT")))
                .region(region).credentialsProvider(credentials)
                .httpClient(NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1).build()).build();
        // Never called: the metrics go nowhere. Port 9 discards.
        var cloudWatch = CloudWatchAsyncClient.builder()
                .endpointOverride(URI.create("http://127.0.0.1:9")).region(region).credentialsProvider(credentials).build();

        String stream = System.getenv("STREAM");
        var configs = new ConfigsBuilder(stream, System.getenv("APP"), kinesis, dynamodb, cloudWatch, "kcl-reader", Dropping::new);
        LeaseManagementConfig leases = configs.leaseManagementConfig();
        // Would ask the metadata service of an EC2 instance, which is not there.
        leases.workerUtilizationAwareAssignmentConfig().disableWorkerMetrics(true);
        // With the defaults it takes a minute and a half until the first lease is given out. How it reads is not changed by this.
        leases.failoverTimeMillis(3_000L).leaseAssignmentIntervalMillis(2_000L).shardSyncIntervalMillis(1_000L);
        MetricsConfig metrics = configs.metricsConfig();
        metrics.metricsFactory(new NullMetricsFactory());
        RetrievalConfig retrieval = configs.retrievalConfig();
        retrieval.initialPositionInStreamExtended(
                InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON));
        retrieval.retrievalSpecificConfig(new PollingConfig(stream, kinesis));

        var scheduler = new Scheduler(configs.checkpointConfig(), configs.coordinatorConfig(), leases,
                configs.lifecycleConfig(), metrics, configs.processorConfig(), retrieval);
        var thread = new Thread(scheduler, "kcl-scheduler");
        thread.start();
        thread.join();
    }

    private KclReader() {}
}
