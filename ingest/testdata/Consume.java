import java.io.PrintStream;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Prints the first values of partition 0 of a topic, each on a line: brokers, topic, how many. */
public class Consume {
    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", args[0]);
        PrintStream out = new PrintStream(System.out, false);
        try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            TopicPartition partition = new TopicPartition(args[1], 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
            for (int n = Integer.parseInt(args[2]); n > 0;) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(n + " records did not come");
                }
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    out.write(record.value());
                    out.write('\n');
                    n--;
                }
            }
        }
        out.flush();
    }
}
